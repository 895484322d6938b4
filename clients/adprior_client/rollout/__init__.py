"""A new bundle beside the stable one: the switch, the comparison, the rules, the steps."""
