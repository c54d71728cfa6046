"""Checks of what every attack and every defense has to do, for those that other packages add.

`check_attack(MyAttack(epsilon=0.1))` and `check_defense(MyDefense)` run all of them; `attack_checks` and
`defense_checks` give them by name, for `pytest.mark.parametrize`. robust_zoo's own tests are made of them.
"""

from robust_zoo.testing.attacks import attack_checks, check_attack
from robust_zoo.testing.defenses import check_defense, defense_checks

__all__ = ["attack_checks", "check_attack", "check_defense", "defense_checks"]
