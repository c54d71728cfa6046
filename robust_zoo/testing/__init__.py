"""Checks that every attack and every defense has to pass, for use by packages that add their own.

`check_attack(MyAttack(epsilon=0.1))` and `check_defense(MyDefense)` run all of them; `attack_checks` and
`defense_checks` return them by name, for `pytest.mark.parametrize`. robust_zoo's own tests use the same checks.
"""

from robust_zoo.testing.attacks import attack_checks, check_attack
from robust_zoo.testing.defenses import check_defense, defense_checks

__all__ = ["attack_checks", "check_attack", "check_defense", "defense_checks"]
