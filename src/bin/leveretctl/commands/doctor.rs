//! What is wrong, why, and what to do about it.

use serde_json::{Value, json};

use crate::{
    call::Call,
    command::Spec,
    commands::status::Told,
    failure::{Failure, exit},
    output::{Output, cell},
    program::tools::OURS,
};

pub(super) static COMMANDS: [Spec; 1] = [Spec {
    name: "doctor",
    tools: OURS,
    group: "Monitoring, observability and health checks",
    args: "",
    options: &[],
    about: "What is wrong with the broker, why, and what to do; exits with 69 when something is",
    run: doctor,
}];

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    Problem,
    Warning,
    Note,
}

impl Weight {
    fn name(self) -> &'static str {
        match self {
            Self::Problem => "problem",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

struct Finding {
    weight: Weight,
    what: String,
    advice: &'static str,
}

/// Objects that a finding names; the rest is a number.
const NAMED_MAX: usize = 5;
/// Percent of a limit from which on it is near.
const NEAR: u64 = 80;

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, weight: Weight, what: String, advice: &'static str) {
        self.0.push(Finding { weight, what, advice });
    }

    /// One finding about several objects.
    fn about(&mut self, weight: Weight, what: &str, names: &[String], advice: &'static str) {
        let named: Vec<&str> = names.iter().take(NAMED_MAX).map(String::as_str).collect();
        let rest = names.len().saturating_sub(named.len());
        let more = if rest > 0 {
            format!(" and {rest} more")
        } else {
            String::new()
        };
        if !names.is_empty() {
            self.add(weight, format!("{what}: {}{more}", named.join(", ")), advice);
        }
    }

    fn node(&mut self, told: &Told) {
        if !told.flag("running") {
            self.add(
                Weight::Problem,
                "the application is stopped: no client is served".to_owned(),
                "leveretctl start_app",
            );
        }
        for alarm in told.alarms() {
            let advice = match alarm {
                "memory" => "let consumers drain what is queued, or raise alarms.vm_memory_high_watermark",
                _ => "free some disk, or lower alarms.disk_free_limit",
            };
            self.add(
                Weight::Problem,
                format!("{alarm} alarm: publishers are blocked"),
                advice,
            );
        }
        let near = |used: u64, limit: u64| limit > 0 && used.saturating_mul(100) / limit >= NEAR;
        if !told.flag("memory_alarm") && near(told.number("memory_used"), told.number("memory_limit")) {
            self.add(
                Weight::Warning,
                format!(
                    "{} of {} bytes of memory are used",
                    told.number("memory_used"),
                    told.number("memory_limit")
                ),
                "above the limit publishers are blocked",
            );
        }
        if near(told.number("open_files"), told.number("open_files_max")) {
            self.add(
                Weight::Warning,
                format!(
                    "{} of {} file descriptors are open",
                    told.number("open_files"),
                    told.number("open_files_max")
                ),
                "raise LimitNOFILE of the service",
            );
        }
        if told
            .rows("listeners")
            .iter()
            .all(|row| row.get("protocol").and_then(Value::as_str) != Some("amqp"))
        {
            self.add(
                Weight::Problem,
                "there is no AMQP listener".to_owned(),
                "set amqp.listen",
            );
        }
    }

    fn queues(&mut self, queues: &[Value], exchanges: &[Value]) {
        let number = |queue: &Value, key: &str| queue.get(key).and_then(Value::as_u64).unwrap_or(0);
        let name = |queue: &Value| {
            let part = |key: &str| queue.get(key).map(cell).unwrap_or_default();
            format!("'{}' in '{}'", part("name"), part("vhost"))
        };
        let names =
            |wanted: &dyn Fn(&&Value) -> bool| queues.iter().filter(wanted).map(name).collect::<Vec<_>>();
        let lonely = names(&|queue| number(queue, "messages_ready") > 0 && number(queue, "consumers") == 0);
        self.about(
            Weight::Warning,
            "messages wait and nobody consumes",
            &lonely,
            "start the consumer, or delete the queue or give it a message-ttl",
        );
        let dead = names(&|queue| {
            let target = dead_letter_exchange(queue);
            target.is_some_and(|target| {
                !target.is_empty()
                    && !exchanges.iter().any(|exchange| {
                        exchange.get("name").and_then(Value::as_str) == Some(target)
                            && exchange.get("vhost") == queue.get("vhost")
                    })
            })
        });
        self.about(
            Weight::Warning,
            "dead letters go to an exchange that does not exist, and are lost",
            &dead,
            "declare the exchange, or correct dead-letter-exchange",
        );
        let full = names(&|queue| {
            let limit = queue
                .get("arguments")
                .and_then(|arguments| arguments.get("x-max-length")?.as_u64())
                .or_else(|| {
                    queue
                        .get("effective_policy_definition")?
                        .get("max-length")?
                        .as_u64()
                });
            limit.is_some_and(|limit| limit > 0 && number(queue, "messages_ready") >= limit)
        });
        self.about(
            Weight::Warning,
            "queues are as long as they may be: messages are dropped or refused",
            &full,
            "consume faster, or raise max-length",
        );
    }

    fn access(&mut self, call: &Call) -> Result<(), Failure> {
        let guest = json!({"user": "guest", "password": "guest"});
        if call.client.post("/leveret/authenticate", &guest).is_ok() {
            let settings = call.client.list("/leveret/environment")?;
            let loopback = settings
                .iter()
                .find(|row| row.get("key").and_then(Value::as_str) == Some("auth.loopback_users"));
            let only_here = loopback.is_some_and(|row| {
                let names = row.get("value").and_then(Value::as_array);
                names.is_some_and(|names| names.iter().any(|name| name == "guest"))
            });
            if only_here {
                let text = "the user guest has its default password, and may log in from this machine only";
                self.add(Weight::Note, text.to_owned(), "leveretctl change_password guest");
            } else {
                let text = "the user guest has its default password, and may log in from anywhere";
                self.add(
                    Weight::Problem,
                    text.to_owned(),
                    "leveretctl change_password guest, or delete_user guest",
                );
            }
        }
        let users = call.client.list("/users/without-permissions")?;
        let names: Vec<String> = users
            .iter()
            .filter_map(|user| user.get("name").map(cell))
            .collect();
        self.about(
            Weight::Note,
            "users may enter no vhost",
            &names,
            "leveretctl set_permissions, or delete them",
        );
        Ok(())
    }
}

fn dead_letter_exchange(queue: &Value) -> Option<&str> {
    let own = queue
        .get("arguments")
        .and_then(|arguments| arguments.get("x-dead-letter-exchange"));
    let policy = || {
        queue
            .get("effective_policy_definition")?
            .get("dead-letter-exchange")
    };
    own.or_else(policy)?.as_str()
}

fn doctor(call: &mut Call) -> Result<Output, Failure> {
    let mut findings = Findings(Vec::new());
    let told = Told::ask(call)?;
    findings.node(&told);
    if told.flag("running") {
        let (queues, exchanges) = (
            call.client.list("/queues")?,
            call.client.list("/exchanges?disable_stats=true")?,
        );
        findings.queues(&queues, &exchanges);
        findings.access(call)?;
    }
    findings.0.sort_by_key(|finding| finding.weight);
    let json: Vec<Value> = findings
        .0
        .iter()
        .map(|finding| json!({"weight": finding.weight.name(), "what": finding.what, "advice": finding.advice}))
        .collect();
    let lines: Vec<String> = findings
        .0
        .iter()
        .map(|finding| {
            format!(
                "{}: {}\n    {}",
                finding.weight.name(),
                finding.what,
                finding.advice
            )
        })
        .collect();
    if findings.0.iter().any(|finding| finding.weight == Weight::Problem) {
        let text = if call.shape.format.is_json() {
            Value::from(json).to_string()
        } else {
            lines.join("\n")
        };
        return Err(Failure::plain(exit::UNAVAILABLE, text));
    }
    let text = if lines.is_empty() {
        "Nothing is wrong".to_owned()
    } else {
        lines.join("\n")
    };
    Ok(Output::Report {
        text,
        json: json.into(),
    })
}
