//! What is true, kept outside the broker: every message sent, confirmed, delivered, acked, and what follows from it
//! (invariants I1 to I11 of the fault specification). Everything noticed is a finding; a run ends by having none.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufWriter, Write},
    path::Path,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::client::Received;

/// The queues of the load. Nobody consumes from the last one: a confirm for it proves a sync.
pub(crate) const QUEUES: [&str; 4] = ["q0", "q1", "q2", "keep"];
pub(crate) const KEEP: usize = 3;

/// A moment, comparable over all threads of the load.
pub(crate) type Stamp = u64;

pub(crate) struct Truth {
    clock: AtomicU64,
    state: Mutex<State>,
}

struct State {
    messages: HashMap<String, Sent>,
    /// What was processed before this moment is on disk.
    flushed: Stamp,
    /// Highest first delivery by queue and publisher, of this generation.
    order: HashMap<(usize, u64), u64>,
    findings: Vec<String>,
    log: BufWriter<File>,
}

struct Sent {
    confirmed: bool,
    /// Messages of one transaction share a number.
    transaction: Option<u64>,
    places: Vec<Place>,
}

/// A message in one queue.
#[derive(Default)]
struct Place {
    queue: usize,
    /// Handed out in this generation, and when first.
    delivered: Option<Stamp>,
    /// With the consumer now.
    out: bool,
    acked: bool,
    /// The broker had taken the ack at this moment.
    ack_taken: Option<Stamp>,
    /// The ack was on disk when the broker died.
    gone: bool,
    /// The delivery was.
    flagged: bool,
    drained: bool,
}

impl Truth {
    /// Events are written to this file, for whoever has to find out.
    pub(crate) fn new(log: &Path) -> Self {
        Self {
            clock: AtomicU64::new(1),
            state: Mutex::new(State {
                messages: HashMap::new(),
                flushed: 0,
                order: HashMap::new(),
                findings: Vec::new(),
                log: BufWriter::new(File::create(log).expect("a log file")),
            }),
        }
    }

    pub(crate) fn now(&self) -> Stamp {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic")
    }

    pub(crate) fn finding(&self, text: String) {
        let mut state = self.state();
        state.note(&format!("FINDING {text}"));
        state.findings.push(text);
    }

    pub(crate) fn note(&self, text: &str) {
        self.state().note(text);
    }

    /// About to be published to these queues.
    pub(crate) fn sent(&self, id: &str, queues: &[usize], transaction: Option<u64>) {
        let mut state = self.state();
        state.note(&format!("sent {id}"));
        let places = queues.iter().map(|&queue| Place {
            queue,
            ..Place::default()
        });
        let sent = Sent {
            confirmed: false,
            transaction,
            places: places.collect(),
        };
        state.messages.insert(id.to_owned(), sent);
    }

    /// Confirmed, or its transaction committed. `sent_at` is from before it was published.
    pub(crate) fn confirmed(&self, id: &str, sent_at: Stamp) {
        let mut state = self.state();
        state.note(&format!("confirmed {id}"));
        let Some(sent) = state.messages.get_mut(id) else {
            return;
        };
        sent.confirmed = true;
        if sent.places.iter().any(|place| place.queue == KEEP) {
            state.flushed = state.flushed.max(sent_at);
        }
    }

    /// A consumer got it. The message's id, when it is one of ours.
    pub(crate) fn delivered(&self, queue: usize, received: &Received) -> Option<String> {
        let now = self.now();
        let mut state = self.state();
        let id = state.identify(queue, received)?;
        let redelivered = received.redelivered;
        state.note(&format!("delivered {id} {} {redelivered}", QUEUES[queue]));
        let (publisher, seq) = origin(&id);
        if !redelivered {
            let last = state.order.insert((queue, publisher), seq);
            if last.is_some_and(|last| last >= seq) {
                state.fault(&format!("I8: {id} came behind {last:?} in {}", QUEUES[queue]));
            }
        }
        let place = state.place(&id, queue)?;
        let (again, out, gone) = (place.delivered.is_some() || place.flagged, place.out, place.gone);
        place.delivered.get_or_insert(now);
        place.out = true;
        if out {
            state.fault(&format!("I7: {id} is with two consumers of {}", QUEUES[queue]));
        }
        if again && !redelivered {
            state.fault(&format!("I7: {id} came again without the redelivered flag"));
        }
        if gone {
            state.fault(&format!(
                "I6: {id} came back to {} after its ack was synced",
                QUEUES[queue]
            ));
        }
        Some(id)
    }

    pub(crate) fn ack_sent(&self, queue: usize, id: &str) {
        let mut state = self.state();
        state.note(&format!("ack {id} {}", QUEUES[queue]));
        if let Some(place) = state.place(id, queue) {
            place.acked = true;
        }
    }

    /// The broker answered something sent behind these acks.
    pub(crate) fn acks_taken(&self, queue: usize, ids: &[String]) {
        let now = self.now();
        let mut state = self.state();
        for id in ids {
            if let Some(place) = state.place(id, queue) {
                place.ack_taken = Some(now);
                place.out = false;
            }
        }
    }

    /// About to be given back.
    pub(crate) fn requeued(&self, queue: usize, id: &str) {
        let mut state = self.state();
        state.note(&format!("requeue {id} {}", QUEUES[queue]));
        if let Some(place) = state.place(id, queue) {
            place.out = false;
        }
    }

    /// The broker is dead: from here on only what was proven to be on disk counts.
    pub(crate) fn crashed(&self, how: &str) {
        let mut state = self.state();
        state.note(&format!("crashed: {how}"));
        state.order.clear();
        let flushed = state.flushed;
        for place in state.messages.values_mut().flat_map(|sent| &mut sent.places) {
            place.gone |= place.ack_taken.is_some_and(|taken| taken < flushed);
            place.flagged |= place.delivered.is_some_and(|delivered| delivered < flushed);
            (place.delivered, place.ack_taken, place.out) = (None, None, false);
        }
    }

    /// Taken out of a queue at the end, in the queue's order.
    pub(crate) fn drained(&self, queue: usize, received: &Received) {
        let mut state = self.state();
        let Some(id) = state.identify(queue, received) else {
            return;
        };
        state.note(&format!("drained {id} {}", QUEUES[queue]));
        let (publisher, seq) = origin(&id);
        let last = state.order.insert((queue, publisher), seq);
        if last.is_some_and(|last| last >= seq) {
            state.fault(&format!(
                "I8: {id} is stored behind {last:?} in {}",
                QUEUES[queue]
            ));
        }
        let Some(place) = state.place(&id, queue) else {
            return;
        };
        let (drained, gone, unflagged) = (place.drained, place.gone, place.flagged && !received.redelivered);
        place.drained = true;
        if drained {
            state.fault(&format!("{id} is twice in {}", QUEUES[queue]));
        }
        if gone {
            state.fault(&format!(
                "I6: {id} is in {} after its ack was synced",
                QUEUES[queue]
            ));
        }
        if unflagged {
            state.fault(&format!(
                "I7: {id} was handed out before and has no redelivered flag"
            ));
        }
    }

    /// After the drain: what is missing. Gives all findings and the number of messages checked.
    pub(crate) fn verdict(&self) -> (Vec<String>, usize) {
        let mut state = self.state();
        let mut missing = Vec::new();
        let mut transactions: HashMap<u64, (u32, u32)> = HashMap::new();
        for (id, sent) in &state.messages {
            let (mut kept, mut lost) = (0, 0);
            for place in &sent.places {
                // What was acked may be there or not; a delivery alone does not mean that it was stored.
                if place.drained {
                    kept += 1;
                } else if !place.acked {
                    lost += 1;
                }
                if sent.confirmed && !place.drained && !place.acked {
                    missing.push(format!("I1: confirmed {id} is lost from {}", QUEUES[place.queue]));
                }
            }
            if kept > 0 && lost > 0 {
                missing.push(format!("{id} reached only {kept} of its {} queues", kept + lost));
            }
            if let Some(number) = sent.transaction {
                let parts = transactions.entry(number).or_default();
                *parts = (parts.0 + kept, parts.1 + lost);
            }
        }
        for (number, (kept, lost)) in transactions {
            if kept > 0 && lost > 0 {
                missing.push(format!(
                    "transaction {number} is half there: {kept} of {}",
                    kept + lost
                ));
            }
        }
        for text in missing {
            state.fault(&text);
        }
        state.log.flush().expect("a log file");
        (state.findings.clone(), state.messages.len())
    }
}

impl State {
    fn note(&mut self, text: &str) {
        writeln!(self.log, "{text}").expect("a log file");
    }

    fn fault(&mut self, text: &str) {
        self.note(&format!("FINDING {text}"));
        self.findings.push(text.to_owned());
    }

    fn place(&mut self, id: &str, queue: usize) -> Option<&mut Place> {
        let places = &mut self.messages.get_mut(id)?.places;
        places.iter_mut().find(|place| place.queue == queue)
    }

    /// The id in a message that is whole and belongs here.
    fn identify(&mut self, queue: usize, received: &Received) -> Option<String> {
        let id = received
            .properties
            .get(4..)
            .and_then(|id| std::str::from_utf8(id).ok())
            .unwrap_or_default()
            .to_owned();
        let known = self.messages.get(&id);
        let mine = known.is_some_and(|sent| sent.places.iter().any(|place| place.queue == queue));
        if !mine {
            self.fault(&format!(
                "I9: {} holds '{id}', which was never sent there",
                QUEUES[queue]
            ));
            return None;
        }
        if received.properties != properties(&id) || received.body != body(&id) {
            self.fault(&format!("I5: {id} is not what was sent"));
        }
        Some(id)
    }
}

/// `publisher.seq.len`: who sent it, its place in that publisher's order, the length of its body.
pub(crate) fn id(publisher: u64, seq: u64, len: usize) -> String {
    format!("{publisher}.{seq}.{len}")
}

fn origin(id: &str) -> (u64, u64) {
    let mut parts = id.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// Persistent, with the id as message-id: flags, delivery mode 2, short string.
pub(crate) fn properties(id: &str) -> Vec<u8> {
    let len = u8::try_from(id.len()).expect("a short id");
    let mut out = vec![0x10, 0x80, 2, len];
    out.extend_from_slice(id.as_bytes());
    out
}

/// The body that belongs to an id: no two alike.
pub(crate) fn body(id: &str) -> Vec<u8> {
    let len = id
        .rsplit('.')
        .next()
        .and_then(|len| len.parse().ok())
        .unwrap_or(0);
    let mut word = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.truncate(len);
    out
}
