"""Verifier: does a plan keep what it promises? Everything is computed again from its inputs.

Shares no code with the enumeration or the formulation, and looks at no solver: only at the plan,
the cluster and the profiles. It cannot tell whether the bound is true, only whether the plan is
consistent with it.
"""

from planner.verify.faults import find_faults, told

__all__ = ["find_faults", "told"]
