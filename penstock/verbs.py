"""The verbs of the command line: their names, their homes and one line of help each.

Names only. Nothing here is imported before its verb is chosen, so that ``penstock --help`` costs
nothing and ``penstock plan`` never meets torch or grpc.
"""

from __future__ import annotations

from typing import NamedTuple


class Verb(NamedTuple):
    """One verb.

    Attributes:
        target: ``module:function`` of the typed function that runs it.
        help: one line for the list of verbs; the function's docstring says the rest.
    """

    name: str
    target: str
    help: str


VERBS = (
    Verb("demo", "demo.cli:demo", "Train, cut, plan, serve and check a model on this machine."),
    Verb("cut", "profiler.cli:cut", "Cut a model into blocks that a plan can spread."),
    Verb("profile", "profiler.cli:profile", "Measure a model's blocks on this device."),
    Verb("estimate", "profiler.cli:estimate", "Estimate a profile for a GPU class not at hand."),
    Verb("plan", "planner.cli:plan", "Find the best plan for a fleet."),
    Verb("check", "planner.cli:check", "Verify a plan against its inputs."),
    Verb("explain", "planner.cli:explain", "Say in words what a plan does, and why."),
    Verb("diff", "planner.cli:diff", "Compare two plans."),
    Verb("curve", "planner.study_cli:curve", "Plan a fleet at several scales of its SLOs."),
    Verb("frontier", "planner.study_cli:frontier", "Find what each level of throughput costs."),
    Verb("import", "planner.import_cli:import_", "Import a published PPipe configuration."),
    Verb("simulate", "simulator.cli:simulate", "Replay a load on a plan, without a machine."),
    Verb("sweep", "simulator.sweeps.cli:sweep", "Simulate plans and policies over many loads."),
    Verb("replay", "simulator.replays.cli:replay", "Replay a run log to identical effects."),
    Verb("serve", "launcher.cli:serve", "Serve a plan on this host: frontend and workers."),
    Verb("frontend", "frontend.cli:frontend", "Run the frontend that clients talk to."),
    Verb("worker", "worker.cli:worker", "Run a worker: one device of the fleet."),
    Verb("health", "client.cli:health", "Ask a server whether it is ready; for probes."),
    Verb("status", "client.cli:status", "Show what a running server serves."),
    Verb("bench", "client.cli:bench", "Send an open-loop load and count the answers."),
    Verb("schema", "penstock.schema_cli:schema", "Print the JSON Schema of a file format."),
)


def verbs_of(room: str) -> tuple[Verb, ...]:
    """Return the verbs that live in one room."""
    return tuple(verb for verb in VERBS if verb.target.startswith(f"{room}."))
