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
    acuity: float = 0.0
    frailty: float = 0.0
    social: float = 0.0
    admin: float = 0.0
    mortality: float = 0.0
    los: Odds = NONE
    denial: float = 0.0
    readmission: float = 0.0


# --- acute illness: rare, strong, shared by most who die -------------------------------------------------------

ACUTE = (
    Finding("shock", "hpi", 0.022, ("in septic shock", "presents in shock", "shock on arrival"),
            ("no shock", "shock ruled out", "not in shock"), 0.117, acuity=0.62, mortality=1.5, los=(-0.8, -0.4, 0.0, 0.8)),
    Finding("ventilator", "hpi", 0.022, ("intubated in the ED", "intubated for airway protection", "intubated"),
            ("not intubated", "never intubated", "intubated years ago for surgery"), 0.117, acuity=0.6, mortality=1.5,
            los=(-0.8, -0.4, 0.0, 0.8)),
    Finding("pressors", "hpi", 0.02, ("on norepinephrine", "requiring pressors", "pressors started"),
            ("no pressors", "pressors not needed", "off pressors before transfer"), 0.117, acuity=0.62, mortality=1.4),
    Finding("obtunded", "exam", 0.028, ("obtunded", "unresponsive", "minimally responsive"),
            ("not obtunded", "never unresponsive", "briefly unresponsive, now awake"), 0.117, acuity=0.5, frailty=0.2,
            mortality=1.4),
    Finding("comfort", "plan", 0.022, ("family asks for comfort care", "hospice discussed", "comfort measures"),
            ("hospice declined", "not ready for hospice", "sister in hospice"), 0.098, acuity=0.3, frailty=0.4,
            mortality=1.5, los=(0.2, 0.0, 0.0, 0.2), denial=-0.2),
    Finding("dnr", "plan", 0.045, ("DNR/DNI", "code status DNR", "DNR"),
            ("not DNR", "DNR rescinded, full code", "full code, no DNR"), 0.234, acuity=0.2, frailty=0.5, mortality=1.2),
    Finding("refractory", "hpi", 0.03, ("hypotension refractory to fluids", "hypotension despite fluids",
                                       "persistent hypotension"),
            ("hypotension resolved with fluids", "no hypotension", "hypotension corrected"), 0.156, acuity=0.6,
            mortality=1.2, denial=-0.4),
    Finding("arrest", "hpi", 0.012, ("cardiac arrest in the field", "cardiac arrest, ROSC", "PEA arrest"),
            ("no cardiac arrest", "remote cardiac arrest", "brother had cardiac arrest"), 0.071, acuity=0.5,
            mortality=1.7),
    Finding("mottled", "exam", 0.025, ("skin mottled", "mottled and cold", "mottled knees"),
            ("not mottled", "no mottled skin", "no longer mottled"), 0.117, acuity=0.6, mortality=1.2),
    Finding("hypoxia", "hpi", 0.04, ("on nonrebreather", "severe hypoxia", "hypoxia on high flow"),
            ("no hypoxia", "off nonrebreather, room air", "hypoxia resolved"), 0.195, acuity=0.55, mortality=1.1,
            los=(-0.5, -0.2, 0.1, 0.5), denial=-0.5),
    Finding("anuria", "hpi", 0.022, ("anuric", "anuric since yesterday", "no urine output"),
            ("not anuric", "good urine output", "never anuric"), 0.117, acuity=0.55, mortality=1.2),
    Finding("cachexia", "exam", 0.03, ("cachectic", "severe cachexia", "cachectic and weak"),
            ("not cachectic", "no cachexia", "thin, not cachectic"), 0.117, frailty=0.5, acuity=0.15, mortality=1.1),
    Finding("bedbound", "social", 0.04, ("bedbound", "bedbound at baseline", "bedbound, total care"),
            ("not bedbound", "father bedbound", "no longer bedbound"), 0.137, frailty=0.6, mortality=1.0,
            los=(-0.6, -0.3, 0.1, 0.6)),
    Finding("organs", "hpi", 0.02, ("multiorgan failure", "worsening multiorgan failure", "organ failure"),
            ("no organ failure", "organ failure ruled out", "no multiorgan failure"), 0.098,
            acuity=0.62, mortality=1.5),
    Finding("hemorrhage", "hpi", 0.016, ("massive hemorrhage", "active hemorrhage", "exsanguinating hemorrhage"),
            ("no hemorrhage", "hemorrhage ruled out", "hemorrhage stopped"), 0.098, acuity=0.5, mortality=1.3),
    Finding("aspiration", "hpi", 0.025, ("witnessed aspiration", "large aspiration", "aspiration with respiratory distress"),
            ("no aspiration", "aspiration ruled out", "denies aspiration"), 0.117, acuity=0.4, frailty=0.25,
            mortality=1.0),
    Finding("declining", "hpi", 0.10, ("much worse than yesterday", "rapidly worse", "worse despite treatment"),
            ("much better than yesterday", "rapidly better", "better with treatment"), 0.36, acuity=0.45,
            mortality=1.3, los=(-0.6, -0.2, 0.2, 0.5), denial=-0.3),
)

# --- what the stay will need: moves length of stay -------------------------------------------------------------

COURSE = (
    Finding("tomorrow", "plan", 0.20, ("home tomorrow", "expect discharge tomorrow", "overnight stay, home tomorrow"),
            ("not ready to go tomorrow", "no discharge tomorrow", "will not go tomorrow"), 0.232, acuity=-0.3,
            los=(1.5, 0.0, -0.7, -1.2), denial=0.25),
    Finding("three_day", "plan", 0.13, ("standard three day pathway", "three day protocol", "72 hour three day course"),
            ("not for the three day pathway", "no three day course", "three day protocol not started"), 0.139,
            los=(-0.7, 1.7, 0.0, -0.9)),
    Finding("five_day", "plan", 0.14, ("five day course", "plan five day IV course", "five day treatment planned"),
            ("no five day course", "five day course already completed", "not a five day course"), 0.139, acuity=0.15,
            los=(-1.2, -0.2, 1.6, 0.2), denial=-0.15),
    Finding("long_iv", "plan", 0.07, ("prolonged IV antibiotics", "six weeks IV antibiotics", "long IV antibiotic course"),
            ("no prolonged IV antibiotics", "prolonged antibiotics not needed", "finished six weeks of antibiotics"), 0.116,
            acuity=0.2, los=(-1.6, -0.8, 0.2, 1.5), denial=-0.3),
    Finding("placement", "plan", 0.10, ("needs placement", "SNF placement needed", "awaiting placement"),
            ("no placement needed", "does not need placement", "declines placement"), 0.162, frailty=0.5,
            los=(-1.5, -0.6, 0.2, 1.4), denial=0.3),
    Finding("icu", "plan", 0.06, ("admit to ICU", "ICU bed requested", "ICU level care"),
            ("no ICU need", "does not need ICU", "ICU not required"), 0.162, acuity=0.6, mortality=0.5,
            los=(-1.2, -0.6, 0.0, 1.0), denial=-0.5),
    Finding("delirium", "exam", 0.08, ("delirious", "acute delirium", "delirium, pulling lines"),
            ("no delirium", "not delirious", "delirium cleared"), 0.162, frailty=0.4, acuity=0.2, mortality=0.3,
            los=(-1.0, -0.4, 0.2, 1.0)),
    Finding("ulcer", "exam", 0.06, ("sacral pressure ulcer", "deep pressure ulcer", "infected ulcer"),
            ("no pressure ulcer", "ulcer healed", "no ulcer"), 0.139, frailty=0.5, los=(-1.0, -0.5, 0.2, 0.9)),
    Finding("guardian", "social", 0.04, ("no caregiver at home", "guardianship pending", "caregiver unable to manage"),
            ("caregiver at home", "guardianship not needed", "caregiver present"), 0.232, social=0.5, frailty=0.2,
            los=(-1.0, -0.5, 0.1, 1.1), denial=0.2),
    Finding("assist", "exam", 0.12, ("needs two person assist", "unable to walk", "cannot stand without assist"),
            ("able to walk without assist", "no assist needed", "walks, no assist"), 0.348, frailty=0.5, acuity=0.1,
            mortality=0.4, los=(-0.9, -0.3, 0.3, 0.7)),
    Finding("observe", "plan", 0.14, ("serial troponins overnight", "monitor overnight", "overnight monitoring"),
            ("no overnight monitoring needed", "troponins not repeated", "overnight monitoring done"), 0.139, acuity=-0.2,
            los=(1.2, 0.0, -0.6, -0.9), denial=0.35),
    Finding("npo", "plan", 0.08, ("NPO with NG tube", "bowel rest, NG tube", "NG tube to suction"),
            ("no NG tube", "NG tube not needed", "NG tube removed"), 0.116, acuity=0.15, los=(-1.2, -0.2, 0.9, 0.5),
            denial=-0.3),
    Finding("eating", "exam", 0.22, ("tolerating diet", "eating well", "good appetite, eating"),
            ("not tolerating diet", "not eating well", "poor appetite, not eating"), 0.36, acuity=-0.3,
            los=(0.8, 0.2, -0.3, -0.7), mortality=-0.3),
    Finding("surgery", "plan", 0.07, ("open surgery tomorrow", "to the OR for open repair", "open operation planned"),
            ("no surgery planned", "open repair not indicated", "declines surgery"), 0.139,
            los=(-1.3, -0.2, 0.8, 0.7), denial=-0.3),
)

# --- what the payer will look at -------------------------------------------------------------------------------

PAYER_FACTS = (
    Finding("no_auth", "admin", 0.13, ("authorization pending", "auth not obtained", "authorization missing"),
            ("authorization obtained", "auth obtained", "authorization on file"), 0.45, admin=0.5, denial=1.3),
    Finding("out_of_network", "admin", 0.09, ("out of network", "plan out of network", "not in network"),
            ("in network", "plan in network", "not out of network"), 0.25, admin=0.4, denial=1.2),
    Finding("lapsed", "admin", 0.07, ("coverage lapsed", "coverage inactive", "coverage not verified"),
            ("coverage verified", "coverage active", "coverage not lapsed"), 0.25, admin=0.4, social=0.2, denial=1.3),
    Finding("not_criteria", "admin", 0.11, ("does not meet inpatient criteria", "inpatient criteria not met",
                                            "observation criteria only"),
            ("meets inpatient criteria", "inpatient criteria met", "inpatient criteria documented"), 0.35, admin=0.3,
            acuity=-0.3, denial=1.4),
    Finding("custodial", "admin", 0.05, ("custodial need", "social admission", "admitted for convenience"),
            ("no custodial need", "not a social admission", "not for convenience"), 0.04, social=0.4, denial=1.2,
            los=(-0.3, -0.1, 0.1, 0.3)),
    Finding("no_referral", "admin", 0.07, ("referral missing", "no referral", "referral not received"),
            ("referral received", "referral on file", "referral not required"), 0.12, admin=0.4, denial=1.0),
    Finding("prior_denial", "admin", 0.06, ("prior claim denied", "last stay denied", "denied before by this plan"),
            ("never denied before", "prior denial overturned", "no prior denial"), 0.05, admin=0.4, denial=1.1),
    Finding("off_label", "admin", 0.04, ("off label treatment", "experimental treatment", "experimental device"),
            ("no experimental treatment", "not experimental", "not off label"), 0.04, denial=1.2),
    Finding("peer_review", "admin", 0.06, ("peer to peer requested", "plan requests peer review", "peer review pending"),
            ("peer review not requested", "no peer to peer", "peer review passed"), 0.05, admin=0.4, denial=1.1),
    Finding("conservative", "admin", 0.06, ("no trial of conservative therapy", "conservative therapy not tried",
                                            "skipped conservative therapy"),
            ("failed conservative therapy", "conservative therapy tried", "conservative therapy exhausted"), 0.08,
            denial=1.0),
    Finding("documented", "admin", 0.22, ("medical necessity documented", "case manager reviewed, necessity clear",
                                          "necessity documented"),
            ("medical necessity not documented", "necessity unclear", "necessity not documented"), 0.10, admin=-0.4,
            denial=-1.1),
)

ADMISSION = ACUTE + COURSE + PAYER_FACTS
