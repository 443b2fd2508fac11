"""A plan with its decisions, for looking at: nothing is built, nothing is pushed."""

from __future__ import annotations

from msgspec import Struct

from kiln.baking.deciding import Made, Planner
from kiln.baking.loading import Plan
from kiln.baking.session import Session
from kiln.baking.staging import Staging
from kiln.plan.decide import BUILD, Decision
from kiln.plan.target import Target


class Planned(Struct, frozen=True):
    """One target of a plan that was decided; `depth` is the longest way down to a target that needs no other."""

    target: Target
    decision: Decision
    needs: tuple[str, ...]
    depth: int


def decide_all(plan: Plan, session: Session) -> list[Planned]:
    """Every target with its decision, each after what it needs; raises what a bake would raise before it begins."""
    planner = Planner(plan, session)
    planner.prepare()
    made: dict[str, Made] = {}
    found = []
    for name in plan.order.names:
        target = plan.shapes[name].target
        why = _waits(plan, planner.staging, name, made)
        if why:
            decision = Decision(BUILD, why)
        else:
            verdict = planner.decide(name, made)
            target, decision = verdict.target, verdict.decision
            if verdict.result is not None:
                triggers = plan.shapes[name].outline.triggers
                made[name] = Made(verdict.result.descriptor, target.pushes or target.tags, triggers=triggers)
                _finish(plan, planner.staging, target.component, made)
        found.append(Planned(target, decision, plan.order.needs[name], plan.order.depth[name]))
    return found


def _waits(plan: Plan, staging: Staging, name: str, made: dict[str, Made]) -> str:
    """Why nothing can be said about a target before something else is made; empty where it can."""
    for need in plan.links[name].values():
        if need not in made:
            return f"its base `{need}` is made first (if that comes out the same, this is skipped)"
    for need in plan.order.needs[name]:
        component = plan.shapes[need].target.component
        if need not in made and staging.has_post(component):
            return f"the last hook of {component} runs first"
    return ""


def _finish(plan: Plan, staging: Staging, component: str, made: dict[str, Made]) -> None:
    """Runs a component's last hook where all of its images are there already."""
    images = [name for name in plan.order.names if plan.shapes[name].target.component == component]
    if component and all(name in made for name in images):
        staging.finish(component)
