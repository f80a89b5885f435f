"""remede"""
