//! Carries an operation out over TCP and in the model, and compares all that came of it.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use amq_protocol::{
    protocol::{basic, queue},
    types::FieldTable,
};

use super::{
    client::{
        self, Arguments, Broker, Channel, Event, Method, Value, access_request, bind, cancel, confirm_select,
        consume, declare, delete, delete_exchange, exchange, get, nack, publish, purge, qos, recover, reject,
        removed, text, tx_commit, tx_rollback, tx_select, unbind,
    },
    operation::{
        CHANNELS, EXCHANGES, KEYS, Op, Overflow, QUEUES, QueueKind, Settle, TAGS, TX, Target, Which,
    },
    spec::{Consumer, Death, Message, Refused, Spec},
};

/// How long dead letters may take to arrive, and what is on disk to be read.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Driver {
    /// Before the broker, so that it is gone when the broker stops.
    channels: Vec<Channel>,
    broker: Broker,
    spec: Spec,
    /// The broker has been restarted: what waits is on its disk, and read in the broker's own time.
    restarted: bool,
}

impl Driver {
    pub(crate) fn new() -> Self {
        let broker = Broker::start();
        let channels = open(&broker);
        Self {
            channels,
            broker,
            spec: Spec::default(),
            restarted: false,
        }
    }

    pub(crate) fn step(&mut self, operation: &Op) {
        self.carry_out(operation);
        self.spec.move_dead();
        let until = Instant::now() + PATIENCE;
        let patient = self.spec.moved || self.restarted;
        loop {
            self.observe();
            let problem = self.spec.idle().or_else(|| self.difference());
            match problem {
                None => break,
                // Dead letters arrive in the broker's own time.
                Some(_) if patient && Instant::now() < until => {}
                Some(problem) => panic!("{problem}"),
            }
        }
    }

    #[expect(clippy::too_many_lines, reason = "an arm per operation")]
    fn carry_out(&mut self, operation: &Op) {
        match *operation {
            Op::Declare { channel, queue } => self.declare(channel, queue, queue),
            Op::Redeclare { channel, queue, like } => self.declare(channel, queue, like),
            Op::DeleteQueue {
                channel,
                queue,
                if_unused,
                if_empty,
            } => {
                // On a quorum queue they close the connection; the feature tests show that.
                let asks = QUEUES[queue].quorum.is_none();
                let (if_unused, if_empty) = (if_unused && asks, if_empty && asks);
                let flags = [if_unused.then_some("if-unused"), if_empty.then_some("if-empty")];
                let flags: Vec<&str> = flags.into_iter().flatten().collect();
                let expected = self.spec.delete_queue(queue, if_unused, if_empty);
                self.counted(channel, delete(QUEUES[queue].name, &flags.join(" ")), expected);
            }
            Op::Purge { channel, queue } => {
                let expected = self.spec.purge(queue);
                self.counted(channel, purge(QUEUES[queue].name), expected);
            }
            Op::DeclareExchange {
                channel,
                exchange: index,
            } => {
                let (name, kind, flags) = EXCHANGES[index];
                self.spec.declare_exchange(index);
                self.channels[channel].ok(exchange(name, kind, flags));
            }
            Op::DeleteExchange {
                channel,
                exchange,
                if_unused,
            } => {
                let flags = if if_unused { "if-unused" } else { "" };
                let expected = self.spec.delete_exchange(exchange, if_unused);
                self.expect(channel, delete_exchange(EXCHANGES[exchange].0, flags), expected);
            }
            Op::Bind {
                channel,
                queue,
                exchange,
                key,
            } => {
                let expected = self.spec.bind(queue, exchange, key);
                self.expect(
                    channel,
                    bind(QUEUES[queue].name, EXCHANGES[exchange].0, KEYS[key]),
                    expected,
                );
            }
            Op::Unbind {
                channel,
                queue,
                exchange,
                key,
            } => {
                self.spec.unbind(queue, exchange, key);
                self.channels[channel].ok(unbind(QUEUES[queue].name, EXCHANGES[exchange].0, KEYS[key]));
            }
            Op::Publish {
                channel,
                to,
                persistent,
                mandatory,
                priority,
            } => self.publish(channel, to, (persistent, mandatory, priority)),
            Op::Commit => self.commit(),
            Op::Rollback => {
                self.spec.rollback(TX);
                self.channels[TX].ok(tx_rollback());
            }
            Op::Consume { .. } => self.consume(operation),
            Op::Cancel { channel, tag } => {
                self.channels[channel].ok(cancel(TAGS[tag]));
                self.spec.cancel(channel, TAGS[tag]);
            }
            Op::Get {
                channel,
                queue,
                no_ack,
            } => self.get(channel, queue, no_ack),
            Op::Settle {
                channel,
                which,
                multiple,
                how,
            } => self.settle(channel, which, multiple, how),
            Op::Recover { channel } => {
                self.spec.recover(channel);
                self.channels[channel].ok(recover(true));
            }
            Op::CloseChannel { channel } => {
                self.spec.close_channel(channel);
                self.channels[channel].close();
                self.reopened(channel, true);
            }
            Op::Restart => {
                self.channels.clear();
                while self.broker.server().counts().connections > 0 {
                    std::thread::yield_now();
                }
                self.broker.restart();
                self.restarted = true;
                self.spec.restart();
                self.channels = open(&self.broker);
            }
        }
    }

    /// After a close: in the model the channel is new, on the wire it is opened if it is not yet.
    fn reopened(&mut self, channel: usize, closed_by_us: bool) {
        if closed_by_us {
            self.channels[channel].reopen();
        } else {
            self.spec.close_channel(channel);
        }
        select(channel, &self.channels[channel]);
    }

    /// Sends a method and checks that it is answered, or refused with the code that the model gives.
    fn expect<T>(
        &mut self,
        channel: usize,
        method: Method,
        expected: Result<T, Refused>,
    ) -> Option<(T, Method)> {
        match expected {
            Ok(expected) => Some((expected, self.channels[channel].ok(method))),
            Err(code) => {
                let close = self.channels[channel].refusal(method);
                assert_eq!(close.code, code, "{}", close.text);
                self.reopened(channel, false);
                None
            }
        }
    }

    fn counted(&mut self, channel: usize, method: Method, expected: Result<usize, Refused>) {
        if let Some((expected, reply)) = self.expect(channel, method, expected) {
            assert_eq!(removed(&reply) as usize, expected, "the count in {reply:?}");
        }
    }

    fn declare(&mut self, channel: usize, queue: usize, like: usize) {
        let flags = QUEUES[like].flags;
        let expected = self.spec.declare(queue, flags);
        let mut method = declare(QUEUES[queue].name, flags);
        if let Method::Queue(queue::AMQPMethod::Declare(declare)) = &mut method {
            declare.arguments = arguments(&QUEUES[queue]);
        }
        let reply = self.expect(channel, method, expected);
        if let Some((
            (ready, consumers),
            Method::Queue(amq_protocol::protocol::queue::AMQPMethod::DeclareOk(ok)),
        )) = reply
        {
            assert_eq!(
                (ok.message_count as usize, ok.consumer_count as usize),
                (ready, consumers)
            );
        }
    }

    fn publish(
        &mut self,
        channel: usize,
        to: Target,
        (persistent, mandatory, priority): (bool, bool, Option<u8>),
    ) {
        let (exchange, key) = match to {
            Target::Queue(queue) => ("", QUEUES[queue].name),
            Target::Exchange { exchange, key } => (EXCHANGES[exchange].0, KEYS[key]),
        };
        let expected = self.spec.publish(channel, to, (persistent, mandatory, priority));
        let body = expected.map_or_else(|_| "refused".to_owned(), |published| published.id.to_string());
        let mut message = publish(exchange, key, &body);
        if persistent {
            message = message.persistent();
        }
        if mandatory {
            message = message.mandatory();
        }
        if let Some(priority) = priority {
            message = message.with(|properties| properties.with_priority(priority));
        }
        let wire = self.channels[channel].clone();
        let published = match expected {
            Ok(expected) => expected,
            Err(code) => {
                assert_eq!(wire.refusal(message).code, code);
                return self.reopened(channel, false);
            }
        };
        wire.send(message);
        if channel == TX {
            return;
        }
        let number = self.spec.channels[channel].published;
        let mut returned = None;
        let mut put_back = Vec::new();
        loop {
            match wire.next() {
                Event::Returned(message) => {
                    assert!(returned.replace(message.text()).is_none(), "returned twice");
                }
                Event::Method(Method::Basic(basic::AMQPMethod::Ack(ack))) => {
                    assert_eq!(
                        (ack.delivery_tag, true),
                        (number, published.accepted),
                        "the confirm"
                    );
                    break;
                }
                Event::Method(Method::Basic(basic::AMQPMethod::Nack(nack))) => {
                    assert_eq!(
                        (nack.delivery_tag, false),
                        (number, published.accepted),
                        "the confirm"
                    );
                    break;
                }
                event => put_back.push(event),
            }
        }
        wire.put_back(put_back);
        let expected = (mandatory && !published.routed).then(|| published.id.to_string());
        assert_eq!(returned, expected, "what came back");
    }

    fn commit(&mut self) {
        let mut trial = self.spec.clone();
        let consumes = TAGS.iter().any(|tag| self.spec.has_tag(TX, tag));
        if trial.commit().refused && consumes {
            // What it delivers to its own consumers goes back with the close that follows, or not: nobody sees it.
            return;
        }
        let committed = self.spec.commit();
        let wire = self.channels[TX].clone();
        if committed.refused {
            assert_eq!(wire.refusal(tx_commit()).code, 406);
            return self.reopened(TX, false);
        }
        wire.ok(tx_commit());
        let (mut returned, mut put_back) = (Vec::new(), Vec::new());
        for event in wire.waiting() {
            match event {
                Event::Returned(message) => returned.push(message.text()),
                event => put_back.push(event),
            }
        }
        wire.put_back(put_back);
        let expected: Vec<String> = committed.returned.iter().map(u64::to_string).collect();
        assert_eq!(returned, expected, "what came back with the commit");
    }

    fn consume(&mut self, operation: &Op) {
        let &Op::Consume {
            channel,
            queue,
            tag,
            no_ack,
            exclusive,
            prefetch,
            priority,
        } = operation
        else {
            return;
        };
        // A tag in use closes the whole connection; the feature tests show that.
        if self.spec.has_tag(channel, TAGS[tag]) {
            return;
        }
        let flags = [no_ack.then_some("no-ack"), exclusive.then_some("exclusive")];
        let flags: Vec<&str> = flags.into_iter().flatten().collect();
        let consumer = Consumer::new(channel, TAGS[tag], no_ack, exclusive, prefetch, priority);
        self.channels[channel].ok(qos(prefetch, false));
        let expected = self.spec.consume(queue, consumer);
        let method = consume(QUEUES[queue].name, TAGS[tag], &flags.join(" "));
        self.expect(channel, method.args([("x-priority", priority.into())]), expected);
    }

    fn get(&mut self, channel: usize, queue: usize, no_ack: bool) {
        let name = QUEUES[queue].name;
        let method = get(name, if no_ack { "no-ack" } else { "" });
        if let Err(code) = self.spec.check_get(queue) {
            assert_eq!(self.channels[channel].refusal(method).code, code);
            return self.reopened(channel, false);
        }
        let got = self.channels[channel].got(method);
        let id = got.as_ref().map(|got| got.text().parse().unwrap());
        let expected = self.spec.get(channel, queue, no_ack, id);
        let expected = expected.unwrap_or_else(|problem| panic!("get from '{name}': {problem}"));
        if let (Some(got), Some((message, remaining))) = (got, expected) {
            compare(&got, &message);
            assert_eq!(got.remaining as usize, remaining);
            assert_eq!(got.tag, self.spec.channels[channel].last_tag);
        }
    }

    fn settle(&mut self, channel: usize, which: Which, multiple: bool, how: Settle) {
        let state = &self.spec.channels[channel];
        let unknown = state.last_tag + 7;
        let outstanding = state.outstanding();
        let tag = match which {
            Which::Outstanding(place) if !outstanding.is_empty() => outstanding[place % outstanding.len()],
            Which::Zero => 0,
            Which::Outstanding(_) | Which::Unknown => unknown,
        };
        let multiple = multiple && !matches!(how, Settle::Reject { .. });
        if multiple && self.spec.is_racy(channel, how) {
            return;
        }
        let flag = if multiple { "multiple" } else { "" };
        let method = match how {
            Settle::Ack => client::ack(tag, flag),
            Settle::Nack { requeue: true } => nack(tag, &format!("requeue {flag}")),
            Settle::Nack { requeue: false } => nack(tag, flag),
            Settle::Reject { requeue } => reject(tag, requeue),
        };
        match self.spec.settle(channel, tag, multiple, how) {
            Ok(()) => self.channels[channel].send(method),
            Err(code) => {
                assert_eq!(self.channels[channel].refusal(method).code, code);
                self.reopened(channel, false);
            }
        }
    }

    /// Takes what came by itself and checks it against the model; then nothing may be due any more.
    fn observe(&mut self) {
        // Two rounds: what one channel's last method brought to the other is there before the second answer.
        for channel in &self.channels {
            channel.ok(access_request());
        }
        let mut deliveries = Vec::new();
        for (at, channel) in self.channels.iter().enumerate() {
            for event in channel.waiting() {
                match event {
                    Event::Delivery(message) => deliveries.push((at, message)),
                    Event::Method(Method::Basic(basic::AMQPMethod::Cancel(cancel))) => {
                        let due = self
                            .spec
                            .cancels
                            .iter()
                            .position(|due| *due == (at, cancel.consumer_tag.as_str()));
                        let due = due.unwrap_or_else(|| panic!("channel {at} was told {cancel:?}"));
                        self.spec.cancels.remove(due);
                    }
                    other => panic!("channel {at}: {other:?}"),
                }
            }
        }
        assert!(
            self.spec.cancels.is_empty(),
            "not told of {:?}",
            self.spec.cancels
        );
        self.deliveries(deliveries);
    }

    fn deliveries(&mut self, mut deliveries: Vec<(usize, client::Message)>) {
        for (channel, state) in self.spec.channels.iter().enumerate() {
            let tags = deliveries
                .iter()
                .filter(|(at, _)| *at == channel)
                .map(|(_, message)| message.tag);
            let tags: Vec<u64> = tags.collect();
            let expected: Vec<u64> = (state.last_tag + 1..).take(tags.len()).collect();
            assert_eq!(tags, expected, "delivery tags of channel {channel}");
        }
        // Between channels there is no order on the wire, so a queue's deliveries are taken in the queue's order.
        let id = |message: &client::Message| message.text().parse::<u64>().unwrap();
        deliveries
            .sort_by_key(|(channel, message)| self.spec.place(*channel, &message.consumer, id(message)));
        let mut last = [0; CHANNELS].map(|_: i32| BTreeMap::new());
        for (channel, message) in deliveries {
            let place = self.spec.place(channel, &message.consumer, id(&message));
            let delivered = self
                .spec
                .deliver(channel, &message.consumer, message.tag, id(&message));
            let delivered = delivered.unwrap_or_else(|problem| panic!("channel {channel}: {problem}"));
            compare(&message, &delivered);
            let Some((queue, Some(_))) = place else {
                continue;
            };
            let before = last[channel].insert(queue, message.tag);
            assert!(
                before.is_none_or(|before| before < message.tag),
                "out of order on channel {channel}"
            );
        }
    }

    /// Ready messages and consumers of every queue, where they are not as they should be.
    fn difference(&self) -> Option<String> {
        QUEUES.iter().enumerate().find_map(|(index, kind)| {
            let queue = self.spec.queues.get(&index)?;
            let (ready, consumers) = self.channels[0].count(kind.name);
            let found = (ready as usize, consumers as usize);
            let expected = (queue.ready.len(), queue.consumers.len());
            (found != expected).then(|| {
                format!(
                    "'{}' has (ready, consumers) {found:?} and not {expected:?}",
                    kind.name
                )
            })
        })
    }
}

fn open(broker: &Broker) -> Vec<Channel> {
    let connection = broker.connect();
    let channels: Vec<Channel> = (0..CHANNELS).map(|_| connection.channel()).collect();
    for (at, channel) in channels.iter().enumerate() {
        select(at, channel);
    }
    channels
}

fn select(at: usize, channel: &Channel) {
    channel.ok(if at == TX { tx_select() } else { confirm_select() });
}

fn arguments(kind: &QueueKind) -> FieldTable {
    let mut arguments = FieldTable::default();
    let mut set = |name: &str, value: Value| {
        arguments.insert(name.into(), value);
    };
    if let Some(max) = kind.max_length {
        set("x-max-length", i32::try_from(max).unwrap().into());
    }
    match kind.overflow {
        Overflow::DropHead => {}
        Overflow::Reject => set("x-overflow", text("reject-publish")),
        Overflow::Divert => set("x-overflow", text("reject-publish-dlx")),
    }
    if let Some((exchange, key)) = kind.dead {
        set("x-dead-letter-exchange", text(exchange));
        if let Some(key) = key {
            set("x-dead-letter-routing-key", text(key));
        }
    }
    if kind.max_priority > 0 {
        set("x-max-priority", kind.max_priority.into());
    }
    if kind.single {
        set("x-single-active-consumer", true.into());
    }
    if let Some(limit) = kind.quorum {
        set("x-queue-type", text("quorum"));
        set("x-delivery-limit", i32::from(limit).into());
    }
    arguments
}

/// What a message says of its deaths.
fn deaths(message: &client::Message) -> VecDeque<Death> {
    let Some(Value::FieldArray(deaths)) = message.header("x-death") else {
        return VecDeque::new();
    };
    let found = deaths.as_slice().iter().map(|death| {
        let Value::FieldTable(death) = death else {
            panic!("{death:?} in x-death");
        };
        let field = |name: &str| death.inner().get(name);
        let word = |name: &str, known: &[&'static str]| {
            let found = known.iter().find(|known| field(name) == Some(&text(known)));
            *found.unwrap_or_else(|| panic!("{name} of {death:?}"))
        };
        let Some(Value::LongLongInt(count)) = field("count") else {
            panic!("the count of {death:?}");
        };
        Death {
            queue: word("queue", &QUEUES.each_ref().map(|kind| kind.name)),
            reason: word("reason", &["rejected", "maxlen", "delivery_limit"]),
            count: *count,
        }
    });
    found.collect()
}

/// A message as it came and as it should be.
fn compare(found: &client::Message, expected: &Message) {
    assert_eq!(found.text(), expected.id.to_string());
    assert_eq!(
        (&*found.exchange, &*found.key),
        (expected.exchange, expected.key),
        "{found:?}"
    );
    assert!(
        expected
            .redelivered
            .is_none_or(|redelivered| redelivered == found.redelivered),
        "redelivered of {found:?}"
    );
    assert_eq!(deaths(found), expected.deaths, "deaths of {found:?}");
    let failed = match found.header("x-delivery-count") {
        Some(Value::LongLongInt(failed)) => *failed,
        _ => 0,
    };
    assert_eq!(failed, i64::from(expected.failed), "failures of {found:?}");
}
