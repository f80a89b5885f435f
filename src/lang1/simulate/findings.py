"""Chart facts at admission that move death, length of stay or denial, and the words that say them.

Each finding is drawn from a normal copula (its `rate`, its ties to the stay's latents), adds its coefficients to the
log-odds of the outcomes, and is written in one of its `said` phrases. Where it is absent, `decoys` (negations,
resolved or remote problems, relatives) say the same words at `decoy_rate`, so that a word alone proves little.
"""

from __future__ import annotations

from dataclasses import dataclass

Odds = tuple[float, float, float, float]
NONE: Odds = (0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Finding:
    """One chart fact: how often, tied to what, moving what, said how."""

    name: str
    section: str
    rate: float
    said: tuple[str, ...]
    decoys: tuple[str, ...] = ()
    decoy_rate: float = 0.0
    core: str = ""
    """noun for the sentences of FRAMES; empty: never said so"""
    frame: str = ""
    """key of FRAMES"""
    acuity: float = 0.0
    frailty: float = 0.0
    social: float = 0.0
    admin: float = 0.0
    mortality: float = 0.0
    los: Odds = NONE
    denial: float = 0.0
    readmission: float = 0.0


FRAMES: dict[str, tuple[tuple[str, str], ...]] = {
    "state": (("{} today, none before", "{} before, none today"), ("now {}, previously not", "previously {}, not now"),
              ("patient has {}, brother does not", "brother has {}, patient does not"),
              ("{} present, not ruled out", "{} ruled out, not present")),
    "plan": (("{} planned, not excluded", "{} excluded, not planned"), ("{} over other options", "other options over {}"),
             ("for {}, not against", "against {}, not for")),
    "claim": (("{} confirmed, not disproved", "{} disproved, not confirmed"),
              ("{} this stay, not last stay", "{} last stay, not this stay"),
              ("{} open, not resolved", "{} resolved, not open")),
    "leaving": (("{} at discharge, not on admission", "{} on admission, not at discharge"),
                ("{} today, none before", "{} before, none today"), ("now {}, previously not", "previously {}, not now")),
}
"""sentences that say a finding is there, or is not, in the same words: only their order tells (see ORDERED)"""
ORDERED = {"state": 0.55, "plan": 0.3, "claim": 0.25, "leaving": 0.25}
"""share of mentions in such sentences"""

# --- acute illness: rare, strong, shared by most who die -------------------------------------------------------

ACUTE = (
    Finding("shock", "hpi", 0.022, ("in septic shock", "shock on arrival", "shock, not improving"),
            ("no shock", "shock ruled out", "shock last year, recovered"), 0.152, core="shock", frame="state", acuity=0.62, mortality=1.5, los=(-0.8, -0.4, 0.0, 0.8)),
    Finding("ventilator", "hpi", 0.022, ("intubated in the ED", "intubated", "intubated, not breathing alone"),
            ("not intubated", "intubated years ago for surgery", "extubated, was intubated elsewhere"), 0.152, core="intubation", frame="state", acuity=0.6, mortality=1.5,
            los=(-0.8, -0.4, 0.0, 0.8)),
    Finding("pressors", "hpi", 0.02, ("on norepinephrine", "requiring pressors", "pressors, no response yet"),
            ("no pressors", "off pressors before transfer", "pressors stopped in the field"), 0.152, core="pressor need", frame="state", acuity=0.62, mortality=1.4),
    Finding("obtunded", "exam", 0.028, ("obtunded", "unresponsive, no eye opening", "minimally responsive"),
            ("not obtunded", "was unresponsive, now awake", "obtunded earlier, now talking"), 0.152, core="coma", frame="state", acuity=0.5, frailty=0.2,
            mortality=1.4),
    Finding("comfort", "plan", 0.022, ("family asks for comfort care", "hospice discussed", "comfort measures, no more treatment"),
            ("hospice declined", "no comfort measures", "sister is in hospice"), 0.127, core="comfort care", frame="plan", acuity=0.3, frailty=0.4,
            mortality=1.5, los=(0.2, 0.0, 0.0, 0.2), denial=-0.2),
    Finding("dnr", "plan", 0.045, ("DNR/DNI", "code status DNR", "DNR, no intubation"),
            ("not DNR", "DNR rescinded, full code", "husband was DNR, patient full code"), 0.304, core="DNR order", frame="plan", acuity=0.2, frailty=0.5, mortality=1.2),
    Finding("refractory", "hpi", 0.03, ("hypotension despite fluids", "hypotension, no response to fluids",
                                       "persistent hypotension"),
            ("hypotension resolved with fluids", "no hypotension", "hypotension gone after fluids"), 0.203, core="hypotension", frame="state", acuity=0.6,
            mortality=1.2, denial=-0.4),
    Finding("arrest", "hpi", 0.012, ("cardiac arrest in the field", "cardiac arrest, no pulse for minutes", "PEA arrest"),
            ("no cardiac arrest", "remote cardiac arrest", "brother had cardiac arrest"), 0.092, core="cardiac arrest", frame="state", acuity=0.5,
            mortality=1.7),
    Finding("mottled", "exam", 0.025, ("skin mottled", "mottled and cold", "mottled, no refill"),
            ("not mottled", "mottled in the field, now warm", "skin was mottled, now warm"), 0.152, core="mottled skin", frame="state", acuity=0.6, mortality=1.2),
    Finding("hypoxia", "hpi", 0.04, ("on nonrebreather", "severe hypoxia", "hypoxia, no better on high flow"),
            ("no hypoxia", "off nonrebreather, room air", "brief hypoxia, resolved"), 0.254, core="hypoxia", frame="state", acuity=0.55, mortality=1.1,
            los=(-0.5, -0.2, 0.1, 0.5), denial=-0.5),
    Finding("anuria", "hpi", 0.022, ("anuric", "anuric since yesterday", "no urine output"),
            ("not anuric", "good urine output", "was anuric, now making urine"), 0.152, core="anuria", frame="state", acuity=0.55, mortality=1.2),
    Finding("cachexia", "exam", 0.03, ("cachectic", "severe cachexia", "cachectic, not eating"),
            ("not cachectic", "cachexia reversed since last year", "was cachectic, weight regained"), 0.152, core="cachexia", frame="state", frailty=0.5, acuity=0.15, mortality=1.1),
    Finding("bedbound", "social", 0.04, ("bedbound", "bedbound at baseline", "bedbound, cannot turn"),
            ("not bedbound", "father bedbound", "was bedbound, now walks"), 0.178, core="bedbound state", frame="state", frailty=0.6, mortality=1.0,
            los=(-0.6, -0.3, 0.1, 0.6)),
    Finding("organs", "hpi", 0.02, ("multiorgan failure", "multiorgan failure, not recovering", "organ failure"),
            ("no organ failure", "organ failure ruled out", "multiorgan failure years ago, recovered"), 0.127, core="organ failure", frame="state",
            acuity=0.62, mortality=1.5),
    Finding("hemorrhage", "hpi", 0.016, ("massive hemorrhage", "active hemorrhage", "hemorrhage not controlled"),
            ("no hemorrhage", "hemorrhage ruled out", "massive hemorrhage at childbirth long ago"), 0.127, core="hemorrhage", frame="state", acuity=0.5, mortality=1.3),
    Finding("aspiration", "hpi", 0.025, ("witnessed aspiration", "large aspiration", "aspiration, not clearing secretions"),
            ("no aspiration", "aspiration ruled out", "large aspiration last year"), 0.152, core="aspiration", frame="state", acuity=0.4, frailty=0.25,
            mortality=1.0),
    Finding("declining", "hpi", 0.10, ("was better, now worse", "rapidly failing", "worse, not better, since yesterday"),
            ("was worse, now better", "not failing", "better, not worse, since yesterday"), 0.36, core="decline", frame="state", acuity=0.45,
            mortality=1.3, los=(-0.6, -0.2, 0.2, 0.5), denial=-0.3),
)

# --- what the stay will need: moves length of stay -------------------------------------------------------------

COURSE = (
    Finding("tomorrow", "plan", 0.20, ("home tomorrow", "expect discharge tomorrow", "no barriers, home tomorrow"),
            ("not ready to go tomorrow", "discharge tomorrow is too early", "cannot leave tomorrow"), 0.278, core="discharge tomorrow", frame="plan", acuity=-0.3,
            los=(1.5, 0.0, -0.7, -1.2), denial=0.25),
    Finding("three_day", "plan", 0.13, ("standard three day pathway", "three day protocol", "three day pathway, no exceptions"),
            ("not for the three day pathway", "failed three day protocol elsewhere", "three day pathway unsuitable"), 0.167, core="three day pathway", frame="plan",
            los=(-0.7, 1.7, 0.0, -0.9)),
    Finding("five_day", "plan", 0.14, ("five day course", "plan five day IV course", "five day treatment, no shorter"),
            ("no five day course", "five day course already completed", "five day treatment done at home"), 0.167, core="five day course", frame="plan", acuity=0.15,
            los=(-1.2, -0.2, 1.6, 0.2), denial=-0.15),
    Finding("long_iv", "plan", 0.07, ("prolonged IV antibiotics", "six weeks IV antibiotics", "long IV antibiotics, no oral option"),
            ("no prolonged IV antibiotics", "finished six weeks IV antibiotics", "oral antibiotics in place of long IV antibiotics"), 0.139, core="prolonged IV antibiotics", frame="plan",
            acuity=0.2, los=(-1.6, -0.8, 0.2, 1.5), denial=-0.3),
    Finding("placement", "plan", 0.10, ("needs placement", "SNF placement needed", "awaiting placement, no bed yet"),
            ("no placement needed", "declines SNF placement", "placement needed only for spouse"), 0.194, core="placement", frame="plan", frailty=0.5,
            los=(-1.5, -0.6, 0.2, 1.4), denial=0.3),
    Finding("icu", "plan", 0.06, ("admit to ICU", "ICU bed requested", "ICU, not stable for floor"),
            ("no ICU need", "ICU declined, floor", "ICU reviewed, stable for floor"), 0.194, core="ICU bed", frame="plan", acuity=0.6, mortality=0.5,
            los=(-1.2, -0.6, 0.0, 1.0), denial=-0.5),
    Finding("delirium", "exam", 0.08, ("delirious", "acute delirium", "delirium, not redirectable"),
            ("no delirium", "delirium cleared", "delirious in the ED, now clear"), 0.194, core="delirium", frame="state", frailty=0.4, acuity=0.2, mortality=0.3,
            los=(-1.0, -0.4, 0.2, 1.0)),
    Finding("ulcer", "exam", 0.06, ("sacral pressure ulcer", "deep pressure ulcer", "pressure ulcer not healing"),
            ("no pressure ulcer", "pressure ulcer healed", "past sacral ulcer, skin intact"), 0.167, core="pressure ulcer", frame="state", frailty=0.5, los=(-1.0, -0.5, 0.2, 0.9)),
    Finding("guardian", "social", 0.04, ("no caregiver at home", "guardianship pending", "caregiver unable to manage"),
            ("caregiver at home", "guardianship not needed", "caregiver able to manage"), 0.278, social=0.5, frailty=0.2,
            los=(-1.0, -0.5, 0.1, 1.1), denial=0.2),
    Finding("assist", "exam", 0.12, ("needs two person assist", "unable to walk", "cannot stand without assist"),
            ("able to walk without assist", "no assist needed", "walks, no assist"), 0.4, core="two person assist", frame="plan", frailty=0.5, acuity=0.1,
            mortality=0.4, los=(-0.9, -0.3, 0.3, 0.7)),
    Finding("observe", "plan", 0.14, ("serial troponins overnight", "monitor overnight", "overnight monitoring, no workup planned"),
            ("no overnight monitoring needed", "overnight monitoring done elsewhere", "overnight monitoring insufficient"), 0.167, core="overnight monitoring", frame="plan", acuity=-0.2,
            los=(1.2, 0.0, -0.6, -0.9), denial=0.35),
    Finding("npo", "plan", 0.08, ("NPO with NG tube", "bowel rest, NG tube", "NG tube to suction, not passing gas"),
            ("no NG tube", "NG tube removed", "pulled NG tube, doing well"), 0.139, core="NG tube", frame="plan", acuity=0.15, los=(-1.2, -0.2, 0.9, 0.5),
            denial=-0.3),
    Finding("eating", "exam", 0.22, ("tolerating diet", "eating well", "eating, no nausea"),
            ("not tolerating diet", "stopped eating", "eating makes pain worse"), 0.4, core="good appetite", frame="state", acuity=-0.3,
            los=(0.8, 0.2, -0.3, -0.7), mortality=-0.3),
    Finding("surgery", "plan", 0.07, ("open surgery planned", "to the OR for open repair", "open repair, not suited for scope"),
            ("no open surgery", "open repair years ago", "open surgery declined"), 0.167, core="open surgery", frame="plan",
            los=(-1.3, -0.2, 0.8, 0.7), denial=-0.3),
)

# --- what the payer will look at -------------------------------------------------------------------------------

PAYER_FACTS = (
    Finding("no_auth", "admin", 0.13, ("authorization pending", "auth not obtained", "authorization missing"),
            ("authorization obtained", "auth obtained", "authorization on file"), 0.45, core="authorization gap", frame="claim", admin=0.5, denial=1.3),
    Finding("out_of_network", "admin", 0.09, ("out of network", "plan out of network", "not in network"),
            ("in network", "plan in network", "not out of network"), 0.25, core="out of network status", frame="claim", admin=0.4, denial=1.2),
    Finding("lapsed", "admin", 0.07, ("coverage lapsed", "coverage inactive", "coverage not verified"),
            ("coverage verified", "coverage active", "coverage not lapsed"), 0.25, core="coverage lapse", frame="claim", admin=0.4, social=0.2, denial=1.3),
    Finding("not_criteria", "admin", 0.11, ("does not meet inpatient criteria", "inpatient criteria not met",
                                            "observation criteria only"),
            ("meets inpatient criteria", "inpatient criteria met", "inpatient criteria documented"), 0.35, core="criteria gap", frame="claim", admin=0.3,
            acuity=-0.3, denial=1.4),
    Finding("custodial", "admin", 0.05, ("custodial need", "social admission", "admitted for convenience"),
            ("no custodial need", "not a social admission", "not for convenience"), 0.04, core="custodial need", frame="claim", social=0.4, denial=1.2,
            los=(-0.3, -0.1, 0.1, 0.3)),
    Finding("no_referral", "admin", 0.07, ("referral missing", "no referral", "referral not received"),
            ("referral received", "referral on file", "referral not required"), 0.12, core="missing referral", frame="claim", admin=0.4, denial=1.0),
    Finding("prior_denial", "admin", 0.06, ("prior claim denied", "last stay denied", "denied before by this plan"),
            ("never denied before", "prior denial overturned", "no prior denial"), 0.05, admin=0.4, denial=1.1),
    Finding("off_label", "admin", 0.04, ("off label treatment", "experimental treatment", "experimental device"),
            ("no experimental treatment", "not experimental", "not off label"), 0.04, core="experimental treatment", frame="claim", denial=1.2),
    Finding("peer_review", "admin", 0.06, ("peer to peer requested", "plan requests peer review", "peer review pending"),
            ("peer review not requested", "no peer to peer", "peer review passed"), 0.05, core="peer review", frame="claim", admin=0.4, denial=1.1),
    Finding("conservative", "admin", 0.06, ("no trial of conservative therapy", "conservative therapy not tried",
                                            "skipped conservative therapy"),
            ("failed conservative therapy", "conservative therapy tried", "conservative therapy exhausted"), 0.08,
            denial=1.0),
    Finding("documented", "admin", 0.22, ("medical necessity documented", "case manager reviewed, necessity clear",
                                          "necessity documented"),
            ("medical necessity not documented", "necessity unclear", "necessity not documented"), 0.10, core="medical necessity", frame="claim", admin=-0.4,
            denial=-1.1),
)

ADMISSION = ACUTE + COURSE + PAYER_FACTS
