"""What a run of the suite found: one outcome per client and scenario, the table, and the closing line."""

PASSED, FAILED, SKIPPED = "pass", "FAIL", "skip"
# The client has no way to do this; said in its description, and not counted.
NOT_OFFERED = "-"


class Report:
    """Outcomes by client and scenario, in the order they were planned."""

    def __init__(self):
        self.outcomes = {}

    def plan(self, client, scenarios):
        """Every planned scenario fails until its client reports it, so that a crash hides nothing."""
        for scenario in scenarios:
            self.outcomes[client, scenario] = FAILED

    def record(self, client, scenario, outcome):
        """Notes one outcome."""
        self.outcomes[client, scenario] = outcome

    def count(self, outcome):
        """How many scenarios ended that way."""
        return sum(found == outcome for found in self.outcomes.values())

    def table(self):
        """A row per scenario, a column per client."""
        clients = list(dict.fromkeys(client for client, _ in self.outcomes))
        scenarios = list(dict.fromkeys(scenario for _, scenario in self.outcomes))
        first = max(map(len, scenarios), default=0)
        widths = [max(len(client), 4) for client in clients]
        lines = ["  ".join([" " * first, *(client.ljust(width) for client, width in zip(clients, widths))])]
        for scenario in scenarios:
            cells = (self.outcomes.get((client, scenario), NOT_OFFERED) for client in clients)
            lines.append("  ".join([scenario.ljust(first), *(cell.ljust(width) for cell, width in zip(cells, widths))]))
        return "\n".join(line.rstrip() for line in lines)

    def closing_line(self):
        """`N passed, N failed`, and how many were skipped if any was."""
        line = f"{self.count(PASSED)} passed, {self.count(FAILED)} failed"
        skipped = self.count(SKIPPED)
        return f"{line}, {skipped} skipped" if skipped else line
