//! Carries an operation out over TCP and in the model, and compares all that came of it.

use amq_protocol::protocol::basic;

use super::{
    client::{
        self, Arguments, Broker, Channel, Event, Method, access_request, bind, cancel, confirm_select,
        consume, declare, delete, delete_exchange, exchange, get, nack, publish, purge, qos, recover, reject,
        removed, unbind,
    },
    operation::{CHANNELS, EXCHANGES, KEYS, Op, QUEUES, Settle, TAGS, Target, Which},
    spec::{Consumer, Refused, Spec},
};

pub(crate) struct Driver {
    /// Before the broker, so that it is gone when the broker stops.
    channels: Vec<Channel>,
    broker: Broker,
    spec: Spec,
}

impl Driver {
    pub(crate) fn new() -> Self {
        let broker = Broker::start();
        let channels = open(&broker);
        Self {
            channels,
            broker,
            spec: Spec::default(),
        }
    }

    pub(crate) fn step(&mut self, operation: &Op) {
        self.carry_out(operation);
        self.observe();
        self.compare_counts();
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
                let flags = [if_unused.then_some("if-unused"), if_empty.then_some("if-empty")];
                let flags: Vec<&str> = flags.into_iter().flatten().collect();
                let expected = self.spec.delete_queue(queue, if_unused, if_empty);
                self.counted(channel, delete(QUEUES[queue].0, &flags.join(" ")), expected);
            }
            Op::Purge { channel, queue } => {
                let expected = self.spec.purge(queue);
                self.counted(channel, purge(QUEUES[queue].0), expected);
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
                    bind(QUEUES[queue].0, EXCHANGES[exchange].0, KEYS[key]),
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
                self.channels[channel].ok(unbind(QUEUES[queue].0, EXCHANGES[exchange].0, KEYS[key]));
            }
            Op::Publish {
                channel,
                to,
                persistent,
                mandatory,
            } => self.publish(channel, to, persistent, mandatory),
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
        self.channels[channel].ok(confirm_select());
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
        let expected = self.spec.declare(queue, QUEUES[like].1);
        let reply = self.expect(channel, declare(QUEUES[queue].0, QUEUES[like].1), expected);
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

    fn publish(&mut self, channel: usize, to: Target, persistent: bool, mandatory: bool) {
        let (exchange, key) = match to {
            Target::Queue(queue) => ("", QUEUES[queue].0),
            Target::Exchange { exchange, key } => (EXCHANGES[exchange].0, KEYS[key]),
        };
        let expected = self.spec.publish(channel, to, persistent);
        let body = expected.map_or_else(|_| "refused".to_owned(), |(id, _)| id.to_string());
        let mut message = publish(exchange, key, &body);
        if persistent {
            message = message.persistent();
        }
        if mandatory {
            message = message.mandatory();
        }
        let wire = self.channels[channel].clone();
        let (id, routed) = match expected {
            Ok(expected) => expected,
            Err(code) => {
                assert_eq!(wire.refusal(message).code, code);
                return self.reopened(channel, false);
            }
        };
        wire.send(message);
        let number = self.spec.channels[channel].published;
        let mut returned = None;
        let mut put_back = Vec::new();
        loop {
            match wire.next() {
                Event::Returned(message) => {
                    assert!(returned.replace(message.text()).is_none(), "returned twice");
                }
                Event::Method(Method::Basic(basic::AMQPMethod::Ack(ack))) => {
                    assert_eq!(ack.delivery_tag, number, "the confirm's number");
                    break;
                }
                event => put_back.push(event),
            }
        }
        wire.put_back(put_back);
        let expected = (mandatory && !routed).then(|| id.to_string());
        assert_eq!(returned, expected, "what came back");
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
        let method = consume(QUEUES[queue].0, TAGS[tag], &flags.join(" "));
        self.expect(channel, method.args([("x-priority", priority.into())]), expected);
    }

    fn get(&mut self, channel: usize, queue: usize, no_ack: bool) {
        let name = QUEUES[queue].0;
        let method = get(name, if no_ack { "no-ack" } else { "" });
        match self.spec.get(channel, queue, no_ack) {
            Err(code) => {
                assert_eq!(self.channels[channel].refusal(method).code, code);
                self.reopened(channel, false);
            }
            Ok(expected) => {
                let got = self.channels[channel].got(method);
                assert_eq!(
                    got.is_some(),
                    expected.is_some(),
                    "get from '{name}': {got:?}, expected {expected:?}"
                );
                if let (Some(got), Some((message, remaining))) = (got, expected) {
                    assert_eq!(got.text(), message.id.to_string(), "get from '{name}'");
                    assert_eq!((&*got.exchange, &*got.key), (message.exchange, message.key));
                    assert!(
                        message
                            .redelivered
                            .is_none_or(|redelivered| redelivered == got.redelivered)
                    );
                    assert_eq!(got.remaining as usize, remaining);
                    assert_eq!(got.tag, self.spec.channels[channel].last_tag);
                }
            }
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
        if let Some(idle) = self.spec.idle() {
            panic!("{idle}");
        }
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
        let mut last = [0; CHANNELS].map(|_: i32| std::collections::BTreeMap::new());
        for (channel, message) in deliveries {
            let place = self.spec.place(channel, &message.consumer, id(&message));
            let delivered = self
                .spec
                .deliver(channel, &message.consumer, message.tag, id(&message));
            let delivered = delivered.unwrap_or_else(|problem| panic!("channel {channel}: {problem}"));
            assert_eq!(
                (&*message.exchange, &*message.key),
                (delivered.exchange, delivered.key)
            );
            assert!(
                delivered
                    .redelivered
                    .is_none_or(|redelivered| redelivered == message.redelivered),
                "redelivered of {message:?}"
            );
            let before = last[channel].insert(place.map(|place| place.0), message.tag);
            assert!(
                before.is_none_or(|before| before < message.tag),
                "out of order on channel {channel}"
            );
        }
    }

    /// Ready messages and consumers of every queue.
    fn compare_counts(&self) {
        for (index, (name, _)) in QUEUES.iter().enumerate() {
            if let Some(queue) = self.spec.queues.get(&index) {
                let (ready, consumers) = self.channels[0].count(name);
                assert_eq!(
                    (ready as usize, consumers as usize),
                    (queue.ready.len(), queue.consumers.len()),
                    "'{name}'"
                );
            }
        }
    }
}

fn open(broker: &Broker) -> Vec<Channel> {
    let connection = broker.connect();
    let channels: Vec<Channel> = (0..CHANNELS).map(|_| connection.channel()).collect();
    for channel in &channels {
        channel.ok(confirm_select());
    }
    channels
}
