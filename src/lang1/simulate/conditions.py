"""Chronic illness: the 17 Charlson conditions with their codes, words and medications, and conditions that score 0.

Weights are Charlson's of 1987; codes lie in Quan's 2005 map. A condition is present from the age at which its
prevalence curve passes the patient's own threshold, so it never goes away. Codes of a stay name a present condition
with probability CODED; an absent one with MISCODED.
"""

from __future__ import annotations

from dataclasses import dataclass

CODED = 0.95
"""probability that a present Charlson condition is coded for the stay"""
MISCODED = 0.0008
"""probability that an absent one is"""


@dataclass(frozen=True)
class Condition:
    """A chronic condition: weight, prevalence at age 70 of average frailty, slope a decade, codes, words, drugs."""

    name: str
    weight: int
    prevalence: float
    slope: float
    icd9: tuple[str, ...]
    icd10: tuple[str, ...]
    said: tuple[str, ...]
    drugs: tuple[str, ...] = ()
    frailty: float = 0.5
    mortality: float = 0.0
    readmission: float = 0.0
    needs: str = ""
    """the milder condition that this one is a form of; drawn only where that one is present"""


CHARLSON = (
    Condition("mi", 1, 0.0094, 0.6, ("410.71", "412"), ("I21.4", "I25.2"),
              ("prior MI", "myocardial infarction", "old infarct"), ("clopidogrel", "metoprolol"), 0.8),
    Condition("chf", 1, 0.0211, 0.7, ("428.0", "428.22"), ("I50.9", "I50.22"),
              ("CHF", "heart failure", "HFrEF"), ("furosemide", "carvedilol"), 1.0, 0.3, 0.6),
    Condition("pvd", 1, 0.0096, 0.5, ("443.9", "440.20"), ("I73.9", "I70.219"),
              ("peripheral vascular disease", "PVD", "claudication"), ("cilostazol",), 0.9),
    Condition("cvd", 1, 0.0067, 0.55, ("434.91", "438.9"), ("I63.9", "I69.30"),
              ("prior stroke", "CVA", "stroke"), ("clopidogrel",), 0.8, 0.2),
    Condition("dementia", 1, 0.0104, 1.1, ("290.0", "331.2"), ("F03.90", "G30.9"),
              ("dementia", "Alzheimer disease", "cognitive decline"), ("donepezil",), 0.8, 0.3, 0.3),
    Condition("copd", 1, 0.0234, 0.25, ("496", "491.21", "493.90"), ("J44.9", "J44.1", "J45.909"),
              ("COPD", "emphysema", "chronic lung disease"), ("tiotropium", "albuterol"), 0.7, 0.2, 0.5),
    Condition("rheum", 1, 0.0075, 0.3, ("714.0", "710.0"), ("M06.9", "M32.9"),
              ("rheumatoid arthritis", "lupus", "RA"), ("methotrexate", "hydroxychloroquine"), 0.2),
    Condition("ulcer", 1, 0.0077, 0.3, ("531.90", "532.90"), ("K25.9", "K26.9"),
              ("peptic ulcer", "gastric ulcer", "duodenal ulcer"), ("sucralfate",), 0.3),
    Condition("liver", 1, 0.0209, 0.2, ("571.8", "070.54"), ("K76.0", "B18.2"),
              ("hepatitis C", "fatty liver", "chronic hepatitis"), ("ursodiol",), 0.3),
    Condition("liver_severe", 3, 0.4744, 0.0, ("572.2", "572.3"), ("K72.90", "K76.6"),
              ("cirrhosis with ascites", "decompensated cirrhosis", "hepatic encephalopathy"), ("lactulose",), 0.8, 0.9, 0.8,
              "liver"),
    Condition("diabetes", 1, 0.0489, 0.35, ("250.00", "250.02"), ("E11.9", "E10.9"),
              ("diabetes", "DM2", "type 2 diabetes"), ("metformin", "glipizide"), 0.7),
    Condition("diabetes_organ", 2, 0.432, 0.1, ("250.40", "250.60"), ("E11.22", "E11.40"),
              ("diabetic nephropathy", "diabetic neuropathy", "diabetes with retinopathy"), ("insulin",), 0.6, 0.0, 0.3,
              "diabetes"),
    Condition("plegia", 2, 0.0149, 0.3, ("342.90", "344.1"), ("G81.94", "G82.20"),
              ("hemiplegia", "paraplegia", "hemiparesis"), ("baclofen",), 0.7, 0.2),
    Condition("renal", 2, 0.038, 0.5, ("585.4", "585.6"), ("N18.4", "N18.6"),
              ("CKD", "ESRD on dialysis", "chronic kidney disease"), ("sevelamer", "epoetin"), 1.0, 0.3, 0.7),
    Condition("cancer", 2, 0.0358, 0.4, ("162.9", "153.9", "174.9"), ("C34.90", "C18.9", "C50.919"),
              ("lung cancer", "colon carcinoma", "breast tumor on chemotherapy"), ("ondansetron",), 0.1, 0.2, 0.4),
    Condition("metastatic", 6, 0.55, 0.0, ("197.7", "198.5", "196.9"), ("C78.7", "C79.51", "C77.9"),
              ("metastatic disease", "liver metastases", "stage IV malignancy"), ("morphine",), 0.1, 1.0, 0.7,
              "cancer"),
    Condition("aids", 6, 0.0002, -0.3, ("042",), ("B20",),
              ("AIDS", "advanced HIV", "HIV with low CD4"), ("biktarvy",), 0.1, 0.4, 0.4),
)

PLAIN = (
    Condition("hypertension", 0, 0.45, 0.5, ("401.9",), ("I10",), ("hypertension", "HTN", "high blood pressure"),
              ("lisinopril", "amlodipine")),
    Condition("lipids", 0, 0.35, 0.4, ("272.4",), ("E78.5",), ("hyperlipidemia", "HLD", "high cholesterol"),
              ("atorvastatin",), 0.0),
    Condition("afib", 0, 0.10, 0.6, ("427.31",), ("I48.91",), ("atrial fibrillation", "afib", "AF"), ("apixaban",)),
    Condition("reflux", 0, 0.20, 0.2, ("530.81",), ("K21.9",), ("GERD", "reflux", "acid reflux"), ("omeprazole",), 0.0),
    Condition("thyroid", 0, 0.12, 0.2, ("244.9",), ("E03.9",), ("hypothyroidism", "low thyroid", "thyroid disease"),
              ("levothyroxine",), 0.0),
    Condition("obesity", 0, 0.15, -0.1, ("278.00",), ("E66.9",), ("obesity", "overweight", "high BMI"), (), 0.0),
    Condition("anxiety", 0, 0.13, -0.1, ("300.00",), ("F41.9",), ("anxiety", "panic attacks", "anxiety disorder"),
              ("sertraline",), 0.0),
    Condition("joints", 0, 0.22, 0.5, ("715.90",), ("M19.90",), ("osteoarthritis", "joint pain", "degenerative joints"),
              ("acetaminophen",), 0.2),
    Condition("migraine", 0, 0.06, -0.3, ("346.90",), ("G43.909",), ("migraine", "headaches", "migraines"),
              ("sumatriptan",), 0.0),
    Condition("bones", 0, 0.10, 0.6, ("733.00",), ("M81.0",), ("osteoporosis", "low bone density", "thin bones"),
              ("calcium",), 0.2),
)

RELATIVES = ("mother", "father", "brother", "sister", "uncle", "aunt")
CHARLSON_INDEX = {condition.name: k for k, condition in enumerate(CHARLSON)}
