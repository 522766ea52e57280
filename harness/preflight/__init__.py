"""`harness preflight`: what an operator runs before trusting a network: every node to every node, on every network.

- `command.py`: options, the backend, exit codes; cleans up in every case
- `survey.py`: makes one pod per node and network, and measures
- `plan.py`: which pairs are measured, and which of them at the same time; pure
- `result.py`: what was found, as plain data with verdicts; `table.py`, `page.py`: the same for people
"""
