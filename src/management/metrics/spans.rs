//! What became of OpenTelemetry spans.

use crate::management::metrics::page::{Kind, Page};
use crate::server::Handle;

/// Nothing while spans are switched off.
pub(super) fn write(page: &mut Page<'_>, handle: &Handle) {
    let Some(spans) = handle.spans() else { return };
    let counts = spans.counts();
    for (name, help, value) in [
        ("leveret_spans_recorded_total", "Spans recorded", counts.recorded),
        (
            "leveret_spans_exported_total",
            "Spans that the collector has",
            counts.exported,
        ),
    ] {
        page.single(name, Kind::Counter, help, value);
    }
    let name = "leveret_spans_lost_total";
    page.family(name, Kind::Counter, "Spans that the collector will never have");
    page.series(name, &[("reason", "overflow")], counts.overflowed);
    page.series(name, &[("reason", "refused")], counts.refused);
    page.single(
        "leveret_spans_waiting",
        Kind::Gauge,
        "Spans waiting for the exporter",
        counts.waiting,
    );
}
