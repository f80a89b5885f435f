"""Why patients are admitted: weights, who, codes, words, and what each reason does to the outcomes.

`los` are log-odds of 0-2, 3, 4-5 and more than 5 days; `code_of` names the Charlson condition that the principal
code belongs to (the reason makes it present).
"""

from __future__ import annotations

from dataclasses import dataclass

from lang1.simulate.findings import NONE, Odds


@dataclass(frozen=True)
class Reason:
    """A reason for admission."""

    name: str
    service: str
    kind: str
    weight: float
    icd9: str
    icd10: str
    said: tuple[str, ...]
    los: Odds = NONE
    ages: tuple[int, int] = (18, 130)
    sex: str = ""
    mortality: float = 0.0
    denial: float = 0.0
    readmission: float = 0.0
    acuity: float = 0.0
    code_of: str = ""
    surgical: bool = False
    imaging: str = "chest"


REASONS = (
    Reason("chest_pain", "cardiology", "emergency", 5.0, "786.50", "R07.9",
           ("chest pain", "chest pressure", "substernal chest pain"), (1.5, -0.1, -0.8, -1.4), denial=0.7, acuity=-0.3),
    Reason("syncope", "medicine", "emergency", 3.0, "780.2", "R55",
           ("syncope", "a fainting episode", "passing out"), (1.3, 0.0, -0.6, -1.1), denial=0.7, acuity=-0.3),
    Reason("back_pain", "medicine", "emergency", 2.0, "724.2", "M54.50",
           ("back pain", "low back pain", "worsening back pain"), (1.0, 0.2, -0.3, -0.8), denial=0.8, acuity=-0.4),
    Reason("gastroenteritis", "medicine", "emergency", 3.5, "558.9", "K52.9",
           ("vomiting and diarrhea", "gastroenteritis", "vomiting"), (1.4, 0.2, -0.6, -1.3), (0, 130), denial=0.3,
           acuity=-0.3, imaging="abdomen"),
    Reason("delivery", "obstetrics", "urgent", 34.0, "650", "O80",
           ("labor at term", "active labor", "ruptured membranes"), (1.8, 0.4, -1.5, -2.2), (17, 45), "female",
           mortality=-2.0, denial=-0.6, readmission=-1.0, acuity=-0.6, imaging="pelvis"),
    Reason("cesarean", "obstetrics", "elective", 15.0, "669.71", "O82",
           ("cesarean delivery", "repeat cesarean", "cesarean section"), (-0.6, 1.9, 0.4, -1.6), (17, 47), "female",
           mortality=-2.0, denial=-0.6, readmission=-0.8, acuity=-0.6, surgical=True, imaging="pelvis"),
    Reason("newborn", "newborn", "newborn", 1.0, "V30.00", "Z38.00",
           ("newborn delivered at term", "term newborn", "newborn, vaginal delivery"), (1.6, 0.3, -0.8, -1.5), (0, 0),
           mortality=-1.5, denial=-0.8, readmission=-0.6, acuity=-0.6),
    Reason("bronchiolitis", "pediatrics", "emergency", 2.0, "466.19", "J21.9",
           ("wheezing and poor feeding", "bronchiolitis", "wheezing"), (0.9, 0.6, -0.3, -1.0), (0, 5), mortality=-1.0,
           acuity=-0.1),
    Reason("child_fever", "pediatrics", "emergency", 2.5, "780.60", "R50.9",
           ("fever", "high fever", "fever and rash"), (0.9, 0.3, -0.2, -0.9), (0, 17), mortality=-1.0, acuity=-0.3),
    Reason("appendicitis", "surgery", "emergency", 2.5, "540.9", "K35.80",
           ("appendicitis", "right lower quadrant pain", "acute appendicitis"), (1.5, 0.2, -0.4, -1.2), (5, 70),
           mortality=-1.0, denial=-0.5, readmission=-0.5, acuity=-0.2, surgical=True, imaging="abdomen"),
    Reason("gallbladder", "surgery", "urgent", 2.5, "574.00", "K80.00",
           ("gallstones", "cholecystitis", "biliary colic"), (0.9, 0.6, -0.1, -1.0), readmission=-0.2, acuity=-0.1,
           surgical=True, imaging="abdomen"),
    Reason("knee", "orthopedics", "elective", 3.5, "715.96", "M17.11",
           ("knee replacement", "elective knee replacement", "total knee replacement"), (0.2, 1.5, 0.0, -1.4), (45, 90),
           mortality=-1.5, denial=0.3, readmission=-0.8, acuity=-0.7, surgical=True, imaging="joint"),
    Reason("hip", "orthopedics", "elective", 2.5, "715.95", "M16.11",
           ("hip replacement", "elective hip replacement", "total hip replacement"), (0.1, 1.5, 0.1, -1.3), (45, 90),
           mortality=-1.5, denial=0.3, readmission=-0.7, acuity=-0.7, surgical=True, imaging="joint"),
    Reason("pneumonia", "medicine", "emergency", 5.0, "486", "J18.9",
           ("pneumonia", "cough and fever", "productive cough"), (-0.7, 0.9, 0.5, -0.2), (0, 130), mortality=0.3,
           denial=-0.3, readmission=0.2, acuity=0.3),
    Reason("kidney_infection", "medicine", "emergency", 3.0, "590.80", "N10",
           ("pyelonephritis", "flank pain and fever", "flank pain"), (-0.3, 1.3, 0.0, -0.9), acuity=0.1,
           imaging="abdomen"),
    Reason("asthma", "medicine", "emergency", 2.5, "493.92", "J45.901",
           ("asthma attack", "asthma exacerbation", "wheezing and asthma"), (0.5, 0.9, -0.1, -1.0), (4, 60),
           mortality=-0.4, readmission=0.2, code_of="copd"),
    Reason("cellulitis", "medicine", "emergency", 4.0, "682.6", "L03.116",
           ("cellulitis", "leg swelling and redness", "leg redness"), (-0.6, 0.2, 1.2, -0.3), denial=0.1, acuity=-0.1,
           imaging="joint"),
    Reason("gi_bleed", "medicine", "emergency", 3.5, "578.9", "K92.2",
           ("black stools", "GI bleed", "rectal bleeding"), (-0.5, 0.4, 0.9, 0.0), denial=-0.3, acuity=0.3,
           imaging="abdomen"),
    Reason("heart_failure", "cardiology", "emergency", 3.2, "428.23", "I50.23",
           ("leg edema and dyspnea", "dyspnea and weight gain", "volume overload"), (-1.0, -0.1, 1.3, 0.4), (40, 130),
           mortality=0.3, denial=-0.2, readmission=0.5, acuity=0.3, code_of="chf"),
    Reason("pancreatitis", "medicine", "emergency", 2.0, "577.0", "K85.90",
           ("pancreatitis", "epigastric pain", "severe epigastric pain"), (-0.6, 0.3, 1.1, 0.1), acuity=0.1,
           imaging="abdomen"),
    Reason("withdrawal", "medicine", "emergency", 2.2, "291.81", "F10.239",
           ("alcohol withdrawal", "tremor after drinking", "withdrawal"), (-0.5, 0.3, 1.2, -0.4), (20, 80), denial=0.3,
           readmission=0.5),
    Reason("diverticulitis", "surgery", "emergency", 2.2, "562.11", "K57.32",
           ("diverticulitis", "left lower quadrant pain", "acute diverticulitis"), (-0.6, 0.4, 1.1, -0.4),
           imaging="abdomen"),
    Reason("colectomy", "surgery", "elective", 1.8, "562.10", "K57.30",
           ("colon resection", "elective colectomy", "bowel resection"), (-1.8, -0.3, 1.3, 0.6), denial=-0.2, acuity=-0.2,
           surgical=True, imaging="abdomen"),
    Reason("sepsis", "medicine", "emergency", 3.5, "038.9", "A41.9",
           ("sepsis", "fever and low blood pressure", "sepsis of unclear source"), (-1.6, -0.6, 0.2, 1.2), mortality=0.9,
           denial=-0.6, readmission=0.3, acuity=1.0),
    Reason("bone_infection", "medicine", "urgent", 1.5, "730.20", "M86.9",
           ("osteomyelitis", "foot infection", "bone infection"), (-1.9, -0.9, 0.0, 1.6), denial=-0.2, readmission=0.3,
           imaging="joint"),
    Reason("hip_fracture", "orthopedics", "emergency", 2.3, "820.8", "S72.001A",
           ("hip fracture", "fall with hip pain", "broken hip"), (-2.2, -0.5, 0.7, 1.2), (55, 130), mortality=0.2,
           denial=-0.6, surgical=True, imaging="joint"),
    Reason("stroke", "neurology", "emergency", 2.4, "434.91", "I63.9",
           ("acute stroke", "facial droop", "sudden weakness"), (-1.0, 0.1, 0.4, 1.0), (35, 130), mortality=0.6,
           denial=-0.5, acuity=0.4, code_of="cvd", imaging="head"),
    Reason("infarct", "cardiology", "emergency", 2.2, "410.71", "I21.4",
           ("NSTEMI", "acute MI", "crushing chest pain"), (-0.2, 0.7, 0.4, -0.2), (35, 130), mortality=0.5, denial=-0.6,
           readmission=0.2, acuity=0.3, code_of="mi"),
    Reason("obstruction", "surgery", "emergency", 2.0, "560.9", "K56.609",
           ("bowel obstruction", "small bowel obstruction", "distended abdomen"), (-1.3, 0.0, 0.9, 0.8), denial=-0.4,
           acuity=0.2, imaging="abdomen"),
    Reason("psychosis", "psychiatry", "emergency", 2.2, "298.9", "F29",
           ("psychosis", "hearing voices", "suicidal thoughts"), (-1.9, -0.9, -0.1, 1.7), (13, 75), mortality=-1.5,
           denial=0.3, readmission=0.4, acuity=-0.5, imaging="head"),
    Reason("seizure", "neurology", "emergency", 2.0, "780.39", "R56.9",
           ("seizure", "witnessed seizure", "convulsions"), (0.6, 0.4, 0.0, -0.4), (0, 130), imaging="head"),
    Reason("dehydration", "medicine", "emergency", 2.5, "276.51", "E86.0",
           ("dehydration", "weakness and poor intake", "generalized weakness"), (0.3, 0.3, 0.2, -0.2), (0, 130),
           denial=0.5),
    Reason("covid", "medicine", "emergency", 0.0, "079.89", "U07.1",
           ("COVID-19", "COVID pneumonia", "positive COVID test and cough"), (-0.8, 0.0, 0.5, 0.7), (0, 130),
           mortality=0.8, denial=-0.5, acuity=0.6),
)

COVID_WEIGHT = {2020: 6.0, 2021: 4.5, 2022: 3.0, 2023: 1.5, 2024: 1.0}
"""weight of the reason `covid` by year; 0 before"""
