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

    def planned(self, client):
        """The client's scenarios."""
        return [scenario for name, scenario in self.outcomes if name == client]

    def record(self, client, scenario, outcome):
        """Notes one outcome."""
        self.outcomes[client, scenario] = outcome

    def count(self, outcome):
        """How many scenarios ended that way."""
        return sum(found == outcome for found in self.outcomes.values())

    def table(self, *others):
        """A row per scenario, a column per client; with other reports, their outcomes of the same stand beside ours."""
        reports = [self, *others]
        keys = [key for report in reports for key in report.outcomes]
        clients = list(dict.fromkeys(client for client, _ in keys))
        scenarios = list(dict.fromkeys(scenario for _, scenario in keys))
        first = max(map(len, scenarios), default=0)
        widths = [max(len(client), 5 * len(reports) - 1) for client in clients]
        lines = ["  ".join([" " * first, *(client.ljust(width) for client, width in zip(clients, widths))])]
        for scenario in scenarios:
            cells = [
                "/".join(report.outcomes.get((client, scenario), NOT_OFFERED) for report in reports) for client in clients
            ]
            lines.append("  ".join([scenario.ljust(first), *(cell.ljust(width) for cell, width in zip(cells, widths))]))
        return "\n".join(line.rstrip() for line in lines)

    def closing_line(self):
        """`N passed, N failed`, and how many were skipped if any was."""
        line = f"{self.count(PASSED)} passed, {self.count(FAILED)} failed"
        skipped = self.count(SKIPPED)
        return f"{line}, {skipped} skipped" if skipped else line
