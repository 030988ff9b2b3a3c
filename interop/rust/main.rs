//! Runs the interop scenarios with lapin: `lapin-scenarios URI [SCENARIO...]` prints one JSON line for each.

mod basics;
mod queues;
mod routing;
mod session;
mod time;

use std::{
    io::Write,
    pin::Pin,
    process::ExitCode,
    time::{Duration, Instant},
};

use session::Outcome;

/// A broker that stays silent fails a scenario after this instead of hanging it.
const PATIENCE: Duration = Duration::from_secs(30);

/// A line for `interop/run.py`.
#[derive(serde::Serialize)]
struct Report {
    scenario: &'static str,
    ok: bool,
    seconds: f64,
    detail: String,
}

type Play = fn(String) -> Pin<Box<dyn Future<Output = Outcome> + Send>>;

macro_rules! scenarios {
    ($($module:ident: $($name:ident)+;)+) => {
        &[$($((stringify!($name), |uri| Box::pin($module::$name(uri)))),+),+]
    };
}

const SCENARIOS: &[(&str, Play)] = scenarios! {
    basics: declare_bind publish_confirms consume_prefetch nack_requeue mandatory_return large_body empty_body
        header_types properties channel_error reconnect;
    routing: consistent_hash headers_matching alternate_exchange exchange_cycle carbon_copies;
    queues: length_limits dead_letters priorities single_active_consumer consumer_priorities exclusive_consumer
        cancel_notify direct_reply_to global_qos transactions update_secret;
    time: expiry quorum_queue delays delayed_retry retry_until_dead consumer_timeout settle;
};

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(uri) = arguments.next() else {
        eprintln!("usage: lapin-scenarios amqp://USER:PASSWORD@HOST:PORT [SCENARIO...]");
        return ExitCode::from(2);
    };
    let names: Vec<String> = arguments.collect();
    if let Some(unknown) = names
        .iter()
        .find(|name| SCENARIOS.iter().all(|(known, _)| known != name))
    {
        eprintln!("no scenario {unknown}");
        return ExitCode::from(2);
    }
    let mut all_ok = true;
    for (name, play) in SCENARIOS {
        if !names.is_empty() && !names.iter().any(|wanted| wanted == name) {
            continue;
        }
        let started = Instant::now();
        let detail = match tokio::time::timeout(PATIENCE, play(uri.clone())).await {
            Ok(Ok(())) => String::new(),
            Ok(Err(problem)) => problem.to_string(),
            Err(_) => format!("still waiting after {PATIENCE:?}"),
        };
        let report = Report {
            scenario: name,
            ok: detail.is_empty(),
            seconds: started.elapsed().as_secs_f64(),
            detail,
        };
        let line = serde_json::to_string(&report).unwrap_or_default();
        if writeln!(std::io::stdout(), "{line}").is_err() {
            return ExitCode::FAILURE;
        }
        all_ok &= report.ok;
    }
    if all_ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
