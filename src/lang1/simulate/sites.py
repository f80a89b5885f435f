"""The fixed frame of a hospital: facilities, departments, providers with roles and habits, local code concepts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from random import Random

from lang1.simulate.admission import SERVICES
from lang1.simulate.tables import CHARLSON, PLAIN, REASONS

FACILITIES = {
    "main": ("Harbor Main", "Harbor Brooklyn", "Harbor Queens"),
    "external": ("Northfield General", "Northfield West"),
}
FACILITY_COUNTY = {"main": ("Manhattan", "Brooklyn", "Queens"), "external": ("Bronx", "Nassau")}
OTHER_SITES = ("emergency", "clinic", "radiology", "pathology")
CLINICIANS = ("attending", "resident", "physician assistant", "nurse practitioner")
CONCEPT_BASE = 2_000_000_001


@dataclass(frozen=True)
class Provider:
    """Who writes: role, department, and how."""

    provider_id: int
    role: str
    care_site_id: int
    style: float
    """where this provider stands in the shares of styles"""
    habit: int
    """which phrasing this provider keeps to"""


@dataclass(frozen=True)
class CareSite:
    """A department of a facility."""

    care_site_id: int
    department: str
    facility: str
    service: str
    location_id: int


@dataclass(frozen=True)
class Frame:
    """Everything about a hospital that no patient changes."""

    sites: tuple[CareSite, ...]
    providers: tuple[Provider, ...]
    authors: dict[int, tuple[Provider, ...]]
    """providers by care site"""
    site_of: dict[tuple[int, str], int]
    """care site id by facility number and service"""
    concepts: dict[tuple[str, str], int]
    """concept id by vocabulary and code"""


@cache
def frame_of(hospital: str) -> Frame:
    """The frame of a hospital; the same in every process."""
    rng = Random(f"frame:{hospital}")
    sites: list[CareSite] = []
    providers: list[Provider] = []
    site_of: dict[tuple[int, str], int] = {}
    for number, facility in enumerate(FACILITIES[hospital]):
        for floor, service in enumerate((*SERVICES, *OTHER_SITES)):
            site = CareSite(
                len(sites) + 1, f"{facility.split()[-1]} {floor + 3} {service}", facility, service, number + 1
            )
            sites.append(site)
            site_of[(number, service)] = site.care_site_id
            roles = (
                ("radiologist",) * 3
                if service == "radiology"
                else (("pathologist",) * 2 if service == "pathology" else CLINICIANS * 2)
            )
            for role in roles:
                providers.append(Provider(len(providers) + 1, role, site.care_site_id, rng.random(), rng.randrange(60)))
    authors = {site.care_site_id: tuple(p for p in providers if p.care_site_id == site.care_site_id) for site in sites}
    return Frame(tuple(sites), tuple(providers), authors, site_of, _concepts())


def _concepts() -> dict[tuple[str, str], int]:
    codes: list[tuple[str, str]] = []
    for item in (*CHARLSON, *PLAIN):
        codes += [("ICD9CM", code) for code in item.icd9] + [("ICD10CM", code) for code in item.icd10]
    codes += [("ICD9CM", reason.icd9) for reason in REASONS] + [("ICD10CM", reason.icd10) for reason in REASONS]
    return {key: CONCEPT_BASE + k for k, key in enumerate(dict.fromkeys(codes))}
