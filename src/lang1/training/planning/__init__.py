"""What a pretraining run needs before it starts: FLOPs, memory a GPU, time, price, energy. Importing stays light.

shape.py    the sizes of a model, read off it on the meta device
flops.py    multiplications a token
memory.py   bytes a GPU through one optimizer step, by part
tables.py   GPUs, prices and public runs from tables/*.yaml, which a user may replace
cost.py     time, price and energy; what a run did cost, for its manifest
page.py     the plan as text
"""
