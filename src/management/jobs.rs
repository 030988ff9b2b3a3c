//! Work on a queue that goes on after its call was answered: the redrive of a dead-letter queue. Jobs are looked at,
//! listed and cancelled; they end with the broker and leave every message where it is or where it should go.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::http::{StatusCode, header};
use parking_lot::{Condvar, Mutex};
use serde_json::{Value, json};

use crate::broker::permission::Verb;
use crate::management::{
    answer::{Answer, ApiError},
    browse::{STEP, target},
    call::Call,
    filter::{Filter, number},
    queues::find,
    route::{Level, Route, delete, get, post},
};
use crate::server::{FIRST, Handle, OperateError, QueueLook, Selected, Sight, now_ms};

pub(super) static ROUTES: [Route; 4] = [
    post(
        "/leveret/queues/{vhost}/{name}/redrive",
        Level::Vhost,
        redrive,
        "Starts to bring dead letters back to where they came from, or to the queue `to`; `filter`, `rate`, `limit`, `dry_run`",
    ),
    get("/leveret/jobs", Level::Any, list, "Jobs, the latest first"),
    get("/leveret/jobs/{id}", Level::Any, show, "A job's progress"),
    delete("/leveret/jobs/{id}", Level::Any, cancel, "Cancels a job"),
];

/// Jobs that run at a time.
const RUNNING_MAX: usize = 8;
/// Jobs that are remembered.
const KEPT_MAX: usize = 100;
/// Targets whose counts are kept apart.
const TARGETS_MAX: usize = 100;

/// The jobs of this broker.
#[derive(Default)]
pub(super) struct Jobs(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    last: u64,
    by_id: BTreeMap<u64, Arc<Job>>,
}

/// What a job was told.
struct Orders {
    vhost: String,
    queue: String,
    user: String,
    filter: Filter,
    /// Messages a second; 0 is no limit.
    rate: u64,
    limit: u64,
    dry_run: bool,
    to: Option<QueueLook>,
    /// The operator of this machine: no permissions are asked for.
    local: bool,
}

struct Job {
    id: u64,
    started_at: u64,
    orders: Orders,
    progress: Mutex<Progress>,
    /// Wakes it when it is cancelled while it waits for its rate.
    cancelled: Condvar,
}

#[derive(Default)]
struct Progress {
    scanned: u64,
    matched: u64,
    moved: u64,
    gone: u64,
    refused: u64,
    /// Messages without a death, or whose queue is gone.
    no_target: u64,
    targets: BTreeMap<String, u64>,
    cancel: bool,
    ended_at: Option<u64>,
    failed: Option<String>,
}

impl Jobs {
    /// # Errors
    /// 503 when too many run.
    fn start(&self, handle: &Handle, source: QueueLook, orders: Orders) -> Result<Arc<Job>, ApiError> {
        let mut kept = self.0.lock();
        let running = kept.by_id.values().filter(|job| job.is_running()).count();
        if running >= RUNNING_MAX {
            return Err(ApiError::unavailable(format!("{RUNNING_MAX} jobs run already")));
        }
        while kept.by_id.len() >= KEPT_MAX {
            let ended = kept.by_id.iter().find(|(_, job)| !job.is_running());
            let Some((&oldest, _)) = ended else { break };
            kept.by_id.remove(&oldest);
        }
        kept.last += 1;
        let job = Arc::new(Job {
            id: kept.last,
            started_at: now_ms(),
            orders,
            progress: Mutex::default(),
            cancelled: Condvar::new(),
        });
        kept.by_id.insert(job.id, Arc::clone(&job));
        let (handle, running) = (handle.clone(), Arc::clone(&job));
        tokio::task::spawn_blocking(move || running.run(&handle, &source));
        Ok(job)
    }
}

impl Job {
    fn is_running(&self) -> bool {
        self.progress.lock().ended_at.is_none()
    }

    fn run(&self, handle: &Handle, source: &QueueLook) {
        let result = self.work(handle, source);
        let mut progress = self.progress.lock();
        progress.failed = result.err().map(|error| error.to_string());
        progress.ended_at = Some(now_ms());
    }

    fn work(&self, handle: &Handle, source: &QueueLook) -> Result<(), OperateError> {
        // What comes back to the dead-letter queue meanwhile is not tried again.
        let end = source.end();
        let mut next = Some(FIRST);
        while let Some(from) = next {
            let (mut sights, then) = handle.look(source, from, STEP)?;
            next = then;
            sights.retain(|sight| sight.place.seq < end);
            self.progress.lock().scanned += sights.len() as u64;
            sights.retain(|sight| self.orders.filter.accepts(sight));
            while !sights.is_empty() {
                let Some(turn) = self.turn(handle, sights.len()) else {
                    return Ok(());
                };
                let later = sights.split_off(turn.min(sights.len()));
                self.bring_back(handle, source, sights)?;
                sights = later;
            }
        }
        Ok(())
    }

    /// How many messages may go now; waits for its rate. `None` when it is over.
    fn turn(&self, handle: &Handle, wanted: usize) -> Option<usize> {
        let mut progress = self.progress.lock();
        let left = self.orders.limit.saturating_sub(progress.matched);
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        if progress.cancel || left == 0 || handle.is_stopping() {
            return None;
        }
        let rate = usize::try_from(self.orders.rate).unwrap_or(usize::MAX);
        if rate == 0 || self.orders.dry_run {
            return Some(wanted.min(left));
        }
        // Ten steps a second at most.
        let turn = (rate / 10).clamp(1, wanted).min(left);
        let millis = (turn as u64 * 1000).div_ceil(self.orders.rate);
        self.cancelled
            .wait_for(&mut progress, Duration::from_millis(millis));
        (!progress.cancel).then_some(turn)
    }

    fn bring_back(
        &self,
        handle: &Handle,
        source: &QueueLook,
        sights: Vec<Sight>,
    ) -> Result<(), OperateError> {
        let matched = sights.len() as u64;
        let mut selected = Vec::with_capacity(sights.len());
        let mut targets: BTreeMap<String, u64> = BTreeMap::new();
        let mut no_target = 0;
        for sight in sights {
            let Some((queue, message)) = self.destination(handle, &sight, source) else {
                no_target += 1;
                continue;
            };
            *targets.entry(queue.definition().name.to_string()).or_default() += 1;
            selected.push(Selected {
                sight,
                to: Some((queue, message)),
                keep: false,
            });
        }
        let outcome = if self.orders.dry_run {
            crate::server::Outcome::default()
        } else {
            handle.settle_selected(source, selected)?
        };
        let mut progress = self.progress.lock();
        progress.matched += matched;
        progress.moved += outcome.done;
        progress.gone += outcome.gone;
        progress.refused += outcome.refused;
        progress.no_target += no_target;
        for (name, count) in targets {
            if progress.targets.len() < TARGETS_MAX || progress.targets.contains_key(&name) {
                *progress.targets.entry(name).or_default() += count;
            }
        }
        Ok(())
    }

    /// The queue that a message is brought to, and the message as it comes there. `None` when it has none, or the user
    /// may not write to it.
    fn destination(
        &self,
        handle: &Handle,
        sight: &Sight,
        source: &QueueLook,
    ) -> Option<(QueueLook, crate::broker::message::Message)> {
        let orders = &self.orders;
        if let Some(to) = &orders.to {
            return Some((to.clone(), sight.message.clone()));
        }
        let (name, message) = crate::broker::queue::dead_letter::brought_back(&sight.message)?;
        let allowed = orders.local || handle.may(&orders.user, &orders.vhost, Verb::Write, &name);
        let queue = handle.queue(&orders.vhost, &name).filter(|_| allowed)?;
        let same = queue.subject() == source.subject() || queue.is_exclusive();
        (!same).then_some((queue, message))
    }

    fn render(&self) -> Value {
        let progress = self.progress.lock();
        let state = match (&progress.failed, progress.ended_at, progress.cancel) {
            (Some(_), ..) => "failed",
            (None, None, _) => "running",
            (None, Some(_), true) => "cancelled",
            (None, Some(_), false) => "done",
        };
        json!({
            "id": self.id,
            "kind": "redrive",
            "vhost": self.orders.vhost,
            "queue": self.orders.queue,
            "user": self.orders.user,
            "dry_run": self.orders.dry_run,
            "state": state,
            "reason": progress.failed,
            "scanned": progress.scanned,
            "matched": progress.matched,
            "moved": progress.moved,
            "gone": progress.gone,
            "refused": progress.refused,
            "no_target": progress.no_target,
            "targets": progress.targets,
            "started_at": self.started_at,
            "ended_at": progress.ended_at,
        })
    }
}

fn redrive(call: &Call) -> Result<Answer, ApiError> {
    let source = find(call)?;
    call.permit(Verb::Read, &source.definition().name)?;
    let object = call.object()?;
    let filter = match object.get("filter") {
        None | Some(Value::Null) => Filter::default(),
        Some(Value::Object(filter)) => Filter::of_object(filter)?,
        Some(_) => return Err(ApiError::bad_request("filter should be an object")),
    };
    let to = target(call, &object)?;
    if to.as_ref().is_some_and(|to| to.subject() == source.subject()) {
        return Err(ApiError::bad_request("source and target are the same queue"));
    }
    let orders = Orders {
        vhost: call.vhost().unwrap_or("/").to_owned(),
        queue: source.definition().name.to_string(),
        user: call.caller.name.clone(),
        filter,
        rate: number(&object, "rate")?.unwrap_or(0),
        limit: number(&object, "limit")?.unwrap_or(u64::MAX),
        dry_run: super::json::flag(&object, "dry_run", false)?,
        to,
        local: call.caller.local,
    };
    let job = call.settings.jobs.start(&call.handle, source, orders)?;
    let place = format!("/api/leveret/jobs/{}", job.id);
    Ok(Answer::json(job.render())
        .status(StatusCode::ACCEPTED)
        .header(header::LOCATION, &place))
}

/// The jobs that the caller may see: one's own, or all for a monitor.
fn visible(call: &Call) -> Vec<Arc<Job>> {
    let kept = call.settings.jobs.0.lock();
    let jobs = kept.by_id.values().rev();
    jobs.filter(|job| call.caller.sees_user(&job.orders.user))
        .cloned()
        .collect()
}

fn find_job(call: &Call) -> Result<Arc<Job>, ApiError> {
    let id = call.name("id").parse::<u64>().ok();
    let found = visible(call).into_iter().find(|job| Some(job.id) == id);
    found.ok_or_else(ApiError::not_found)
}

fn list(call: &Call) -> Result<Answer, ApiError> {
    Ok(Answer::json(
        visible(call).iter().map(|job| job.render()).collect(),
    ))
}

fn show(call: &Call) -> Result<Answer, ApiError> {
    Ok(Answer::json(find_job(call)?.render()))
}

fn cancel(call: &Call) -> Result<Answer, ApiError> {
    let job = find_job(call)?;
    if !call.caller.is_admin() && call.caller.name != job.orders.user {
        return Err(ApiError::not_authorised("User not authorised to access object"));
    }
    job.progress.lock().cancel = true;
    job.cancelled.notify_all();
    Ok(Answer::no_content())
}
