"""Words that say nothing about an outcome: normal findings, routine plans, lives, reviews of systems; section headers."""

from __future__ import annotations

from dataclasses import dataclass

FILLERS: dict[str, tuple[str, ...]] = {
    "hpi": (
        "no recent travel", "no sick contacts", "came by ambulance", "arrived with family", "symptoms began after dinner",
        "took ibuprofen at home", "called the clinic first", "seen in the ED", "history from patient", "chart reviewed",
        "no recent antibiotics", "symptoms come and go", "similar to past episodes", "first episode of this kind",
        "records requested", "pain rated six of ten", "sleep was poor", "walked into triage", "brought by a friend",
    ),
    "exam": (
        "lungs clear", "abdomen soft", "no rash", "heart regular", "neck supple", "pupils equal", "no focal weakness",
        "no murmur", "bowel sounds present", "no calf tenderness", "moist membranes", "no adenopathy", "normal affect",
        "cranial nerves intact", "no joint swelling", "good capillary refill", "trachea midline", "no jaundice",
    ),
    "plan": (
        "DVT prophylaxis", "home meds continued", "labs in the morning", "PT evaluation", "daily weights", "fall precautions",
        "diet as ordered", "pain control", "nutrition consult", "discussed with attending", "will follow",
        "replete electrolytes", "repeat imaging if needed", "case discussed with family", "monitor intake and output",
    ),
    "child": (
        "lives with parents", "attends daycare", "vaccines up to date", "no smokers at home", "one older sibling",
        "mother at bedside", "growing well", "born at term", "both parents present", "no pets at home", "feeding on demand",
        "seen by pediatrician last month", "grandmother helps at home",
    ),
    "course": (
        "treated per protocol", "consults followed", "imaging reviewed", "antibiotics completed", "diet advanced",
        "home meds resumed", "no complications", "seen by PT", "seen by nutrition", "labs followed daily", "uneventful nights",
        "IV fluids given", "electrolytes repleted", "wounds checked daily", "tests explained to family",
    ),
    "social": (
        "retired teacher", "former smoker", "works in construction", "two adult children", "speaks Spanish at home",
        "drives a taxi", "retired nurse", "never smoked", "works nights", "married", "enjoys gardening", "church volunteer",
        "walks the dog", "born in the Caribbean", "office worker", "moved here last year",
    ),
}

REVIEW = (
    "constitutional no weight loss or night sweats", "eyes no double vision or eye pain", "ears no hearing loss or ringing",
    "throat no soreness or hoarseness", "cardiac no palpitations", "lungs no wheeze or sputum", "gut no heartburn or bloating",
    "urine no burning or frequency", "skin no itching or bruising", "joints no stiffness", "nerves no numbness or tingling",
    "blood no easy bruising", "endocrine no heat or cold intolerance", "allergy no hives", "sleep no snoring reported",
    "medication list reviewed with the pharmacy", "allergies reviewed in the chart", "immunizations up to date per registry",
    "previous imaging reviewed and unchanged", "belongings sent home with relatives", "interpreter offered and used as needed",
    "patient rights explained on arrival", "call bell within reach", "hand hygiene performed before contact",
    "text copied from prior encounter and reviewed", "time spent more than thirty minutes", "attestation to follow",
)

COMPLAINT = ("presents with {reason}", "here with {reason}", "admitted for {reason}", "comes in with {reason}")
SINCE = ("since yesterday", "for two days", "for three days", "for a week", "since this morning", "")


@dataclass(frozen=True)
class Style:
    """How an author's department writes: headers by section, their order, what joins phrases."""

    headers: dict[str, str]
    order: tuple[str, ...]
    joiner: str


_LONG = {"hpi": "History of present illness:", "pmh": "Past medical history:", "family": "Family history:",
         "meds": "Home medications:", "social": "Social history:", "exam": "Physical exam:", "labs": "Laboratory data:",
         "admin": "Insurance:", "plan": "Assessment and plan:", "course": "Hospital course:", "disposition": "Disposition:"}
_SHORT = {"hpi": "HPI:", "pmh": "PMH:", "family": "FH:", "meds": "Meds:", "social": "SH:", "exam": "PE:", "labs": "Labs:",
          "admin": "Payer:", "plan": "A/P:", "course": "Course:", "disposition": "Dispo:"}
_TEMPLATE = {"hpi": "# Presenting problem", "pmh": "# Problem list", "family": "# Family", "meds": "# Medications",
             "social": "# Social", "exam": "# Exam", "labs": "# Results", "admin": "# Coverage", "plan": "# Plan",
             "course": "# Course", "disposition": "# Disposition"}
_PLAIN = {key: "" for key in _LONG}
_EXTERNAL = {"hpi": "REASON FOR VISIT -", "pmh": "ACTIVE AND PAST PROBLEMS -", "family": "RELATIVES -",
             "meds": "DRUGS ON ARRIVAL -", "social": "LIVING SITUATION -", "exam": "EXAMINATION -", "labs": "TESTS -",
             "admin": "FINANCIAL -", "plan": "IMPRESSION -", "course": "SUMMARY OF STAY -", "disposition": "LEAVING -"}
_ORDER = ("hpi", "course", "pmh", "family", "meds", "social", "exam", "labs", "admin", "disposition", "plan")
_PLAN_FIRST = ("hpi", "course", "plan", "disposition", "exam", "labs", "pmh", "family", "meds", "social", "admin")
_ADMIN_EARLY = ("hpi", "course", "pmh", "meds", "family", "admin", "social", "exam", "labs", "plan", "disposition")

STYLES = (
    Style(_LONG, _ORDER, ". "),
    Style(_SHORT, _ADMIN_EARLY, ", "),
    Style(_PLAIN, _ORDER, ". "),
    Style(_TEMPLATE, _PLAN_FIRST, "; "),
    Style(_EXTERNAL, _ADMIN_EARLY, ". "),
    Style({key: value.upper() for key, value in _SHORT.items()}, _PLAN_FIRST, "; "),
)
"""0-3: the main hospital (0 fades after 2016, 3 is the template of 2021); 4, 5 and 2: the external one"""

STYLE_SHARE = {0: (0.55, 0.25, 0.20, 0.0), 1: (0.30, 0.45, 0.25, 0.0), 2: (0.15, 0.35, 0.15, 0.35)}
"""main hospital: share of styles before 2016, from 2016, from 2021"""

EXTERNAL_WORDS = {
    "SNF": "skilled facility", "placement": "rehab bed", "auth": "precert", "authorization": "precertification",
    "intubated": "mechanically ventilated", "pressors": "vasopressors", "obtunded": "stuporous", "lives alone": "by self at home",
    "homeless": "undomiciled", "nonadherent": "noncompliant", "pathway": "bundle", "overnight": "until morning",
    "CHF": "congestive failure", "CKD": "chronic renal failure", "COPD": "obstructive lung disease", "DM2": "T2DM",
    "teach back": "teaching check", "follow up": "aftercare", "worse": "poorer", "bedbound": "confined to bed",
    "custodial": "nonacute", "referral": "physician order", "delirium": "acute confusion", "eating": "taking meals",
}
"""the external hospital says some things in other words"""

RADIOLOGY = {
    "chest": ("CHEST RADIOGRAPH", ("lungs are clear", "no pleural effusion", "no pneumothorax", "heart size is normal",
              "mild basilar atelectasis", "bony thorax intact", "no focal consolidation"),
              ("right lower lobe opacity", "small left effusion", "pulmonary vascular congestion", "enlarged heart")),
    "abdomen": ("CT ABDOMEN AND PELVIS", ("liver is normal in size", "no free air", "kidneys enhance symmetrically",
                "no bowel obstruction", "spleen is unremarkable", "no free fluid", "appendix is normal"),
                ("bowel wall thickening", "gallstones are present", "fat stranding is seen", "dilated small bowel loops")),
    "joint": ("RADIOGRAPH OF EXTREMITY", ("no acute fracture", "joint spaces are maintained", "alignment is anatomic",
              "soft tissues are unremarkable", "no foreign body", "mild degenerative change"),
              ("soft tissue swelling", "marked joint space narrowing", "cortical irregularity", "hardware in position")),
    "head": ("CT HEAD WITHOUT CONTRAST", ("no acute hemorrhage seen", "ventricles are normal", "no midline shift",
             "gray white differentiation preserved", "sinuses are clear", "calvarium is intact"),
             ("small vessel changes", "old lacunar infarct", "loss of gray white differentiation", "mild volume loss")),
    "pelvis": ("PELVIC ULTRASOUND", ("uterus is normal in size", "no free fluid", "ovaries are unremarkable",
               "placenta is posterior", "cardiac activity is present", "fluid volume is normal"),
               ("small fibroid noted", "simple ovarian cyst", "low lying placenta", "mild hydronephrosis")),
}
RADIOLOGY_FRAME = ("technique: standard views were obtained", "comparison: none available",
                   "comparison: prior study of last year", "indication: {reason}", "clinical history: {reason}")
PATHOLOGY = (
    ("cervical cytology", ("negative for intraepithelial lesion", "endocervical cells present", "reactive changes",
                           "specimen adequate for evaluation", "no organisms identified")),
    ("colon biopsy", ("tubular adenoma", "hyperplastic polyp", "no high grade dysplasia", "benign colonic mucosa",
                      "margins are free")),
    ("gallbladder, cholecystectomy", ("chronic cholecystitis", "cholelithiasis", "no malignancy identified",
                                      "wall thickness is two mm", "cystic duct margin unremarkable")),
    ("placenta, delivery", ("third trimester placenta", "three vessel cord", "membranes unremarkable",
                            "no villitis", "weight is appropriate for age")),
    ("skin biopsy", ("seborrheic keratosis", "basal cell carcinoma", "dermal fibrosis", "lesion extends to margin",
                     "no melanoma identified")),
    ("breast core biopsy", ("fibrocystic change", "invasive ductal carcinoma", "no atypia", "calcifications present",
                            "receptor studies pending")),
)
PATHOLOGY_FRAME = ("received in formalin, labeled with the patient name", "gross: tan tissue fragments",
                   "microscopic examination performed", "sections submitted in one cassette")
PROGRESS = (
    "no acute events overnight", "slept well", "resting comfortably", "vitals stable", "afebrile", "labs reviewed",
    "continue current management", "plan unchanged", "seen on rounds", "continue antibiotics", "advance diet",
    "out of bed to chair", "PT following", "awaiting consult", "pain controlled", "family updated", "IV fluids stopped",
    "wean oxygen as able", "electrolytes repleted", "will reassess in the morning",
)
PROGRESS_TREND = ("improving", "slightly better today", "about the same", "a little worse today", "slow progress")
