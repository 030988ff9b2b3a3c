//! A synchronous AMQP client for tests: it sends what it is told and shows what comes, frame by frame and in order,
//! with the codes, texts and ids that a polite client library hides. Frames are encoded and decoded by amq-protocol
//! (lapin's codec), not by Leveret's own, so that one cannot excuse the other's mistakes.

#![allow(
    dead_code,
    reason = "several test programs share this module and none uses all of it"
)]

mod broker;
mod methods;
mod wire;

use std::{cell::RefCell, net::SocketAddr, rc::Rc, time::Duration};

use amq_protocol::{
    protocol::{basic, channel, connection},
    types::FieldTable,
};

use self::wire::Wire;
pub(crate) use self::{
    broker::Broker,
    methods::*,
    wire::{Close, Event, Message},
};

/// A connection. Handles may be cloned; the socket goes when the last handle and channel does.
#[derive(Clone)]
pub(crate) struct Connection(Rc<RefCell<Wire>>);

/// A channel of a connection.
#[derive(Clone)]
pub(crate) struct Channel {
    wire: Rc<RefCell<Wire>>,
    id: u16,
}

/// How a connection introduces itself.
pub(crate) struct Login<'a> {
    pub(crate) user: &'a str,
    pub(crate) password: &'a str,
    pub(crate) vhost: &'a str,
    /// The names of the capabilities that are announced as true.
    pub(crate) capabilities: &'a [&'a str],
}

impl Default for Login<'_> {
    fn default() -> Self {
        Self {
            user: "guest",
            password: "guest",
            vhost: "/",
            capabilities: &[
                "authentication_failure_close",
                "connection.blocked",
                "consumer_cancel_notify",
            ],
        }
    }
}

impl Connection {
    pub(crate) fn open(address: SocketAddr, login: &Login<'_>) -> Self {
        Self::try_open(address, login)
            .unwrap_or_else(|close| panic!("the broker refused the connection: {close:?}"))
    }

    /// Opens a connection, or gives the broker's reason not to.
    pub(crate) fn try_open(address: SocketAddr, login: &Login<'_>) -> Result<Self, Close> {
        let mut wire = Wire::connect(address);
        let mut capabilities = FieldTable::default();
        for name in login.capabilities {
            capabilities.insert((*name).into(), true.into());
        }
        wire.expect_method(0, "connection.start")?;
        wire.send(
            0,
            &Method::Connection(connection::AMQPMethod::StartOk(connection::StartOk {
                client_properties: table([("capabilities", capabilities.into())]),
                mechanism: "PLAIN".into(),
                response: format!("\0{}\0{}", login.user, login.password).into(),
                locale: "en_US".into(),
            })),
        );
        let Method::Connection(connection::AMQPMethod::Tune(tune)) =
            wire.expect_method(0, "connection.tune")?
        else {
            panic!("no connection.tune");
        };
        wire.frame_max = tune.frame_max;
        wire.send(
            0,
            &Method::Connection(connection::AMQPMethod::TuneOk(connection::TuneOk {
                channel_max: tune.channel_max,
                frame_max: tune.frame_max,
                heartbeat: 0,
            })),
        );
        wire.send(
            0,
            &Method::Connection(connection::AMQPMethod::Open(connection::Open {
                virtual_host: login.vhost.into(),
            })),
        );
        wire.expect_method(0, "connection.open-ok")?;
        Ok(Self(Rc::new(RefCell::new(wire))))
    }

    /// Opens the next channel.
    pub(crate) fn channel(&self) -> Channel {
        let id = {
            let mut wire = self.0.borrow_mut();
            wire.last_channel += 1;
            wire.last_channel
        };
        let channel = Channel {
            wire: Rc::clone(&self.0),
            id,
        };
        channel.reopen();
        channel
    }

    /// channel.open on the next number, which the broker must refuse by closing the connection.
    pub(crate) fn refused_channel(&self) -> Close {
        let mut wire = self.0.borrow_mut();
        wire.last_channel += 1;
        let number = wire.last_channel;
        wire.send(
            number,
            &Method::Channel(channel::AMQPMethod::Open(channel::Open::default())),
        );
        wire.expect_connection_close()
    }

    /// Sends connection.close and waits for the answer.
    pub(crate) fn close(self) {
        let mut wire = self.0.borrow_mut();
        wire.send(
            0,
            &Method::Connection(connection::AMQPMethod::Close(connection::Close {
                reply_code: 200,
                reply_text: "bye".into(),
                class_id: 0,
                method_id: 0,
            })),
        );
        wire.expect_method(0, "connection.close-ok").unwrap();
    }

    /// Cuts the connection without a word, however many handles there are.
    pub(crate) fn cut(self) {
        self.0.borrow_mut().shutdown();
    }

    /// Waits until the broker closes the connection, answers it, and gives the broker's words.
    pub(crate) fn closed(&self) -> Close {
        self.0.borrow_mut().expect_connection_close()
    }

    /// The next method on channel 0 that is no heartbeat.
    pub(crate) fn next_method(&self) -> Method {
        self.0.borrow_mut().next_method(0)
    }
}

impl Channel {
    pub(crate) fn id(&self) -> u16 {
        self.id
    }

    pub(crate) fn connection(&self) -> Connection {
        Connection(Rc::clone(&self.wire))
    }

    /// channel.open on this number, again after a close.
    pub(crate) fn reopen(&self) {
        let open = Method::Channel(channel::AMQPMethod::Open(channel::Open::default()));
        self.ok(open);
    }

    pub(crate) fn close(&self) {
        self.ok(Method::Channel(channel::AMQPMethod::Close(channel::Close {
            reply_code: 200,
            reply_text: "bye".into(),
            class_id: 0,
            method_id: 0,
        })));
    }

    pub(crate) fn send(&self, request: impl Request) {
        self.wire.borrow_mut().send(self.id, &request);
    }

    /// Sends a method and gives its reply. What else came before stays in order for [`Channel::next`].
    pub(crate) fn call(&self, request: impl Request) -> Event {
        let mut wire = self.wire.borrow_mut();
        wire.send(self.id, &request);
        wire.reply(self.id, request.name())
            .unwrap_or_else(|close| panic!("{} was refused: {close:?}", request.name()))
    }

    /// Sends a method and checks that the reply is its `-ok`.
    pub(crate) fn ok(&self, request: impl Request) -> Method {
        let (class, method) = request.ids();
        match self.call(request) {
            Event::Method(reply) => {
                let reply_ids = ids(&reply);
                let expected = [(class, method + 1), (class, 51)];
                assert!(
                    expected.contains(&reply_ids),
                    "{reply:?} in answer to {class}.{method}"
                );
                reply
            }
            other => panic!("{other:?} in answer to {class}.{method}"),
        }
    }

    /// Sends a method that the broker must refuse by closing the channel with this code and text, and with the ids of
    /// the method. Opens the channel again.
    pub(crate) fn refuses(&self, request: impl Request, code: u16, text: &str) {
        let close = self.refusal(request);
        assert_eq!((close.code, &*close.text), (code, text));
    }

    /// As [`Channel::refuses`], for texts that a test looks at itself.
    pub(crate) fn refusal(&self, request: impl Request) -> Close {
        self.send(&request);
        let close = self.closed();
        assert_eq!((close.class, close.method), request.ids(), "ids of {close:?}");
        close
    }

    /// Waits until the broker closes the channel, answers and opens it again. Events before the close are forgotten.
    pub(crate) fn closed(&self) -> Close {
        let close = self.wire.borrow_mut().expect_channel_close(self.id);
        self.reopen();
        close
    }

    /// Sends a method that the broker must refuse by closing the connection.
    pub(crate) fn fails(&self, request: impl Request, code: u16, text: &str) {
        self.send(&request);
        let close = self.wire.borrow_mut().expect_connection_close();
        assert_eq!((close.code, &*close.text), (code, text));
        assert_eq!((close.class, close.method), request.ids(), "ids of {close:?}");
    }

    /// The next thing that came and was not the reply of a call.
    pub(crate) fn next(&self) -> Event {
        self.wire.borrow_mut().next(self.id)
    }

    /// The next event within `patience`, for what only time brings.
    pub(crate) fn next_within(&self, patience: Duration) -> Option<Event> {
        self.wire.borrow_mut().next_within(self.id, patience)
    }

    /// The next event, which must be a delivery.
    pub(crate) fn delivery(&self) -> Message {
        match self.next() {
            Event::Delivery(message) => message,
            other => panic!("{other:?} instead of a delivery"),
        }
    }

    /// The bodies of the next `count` deliveries.
    pub(crate) fn deliveries(&self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.delivery().text()).collect()
    }

    /// Checks that nothing came beside replies. Exact for everything that was done before on connections which got a
    /// reply since.
    pub(crate) fn nothing(&self) {
        let found = self.waiting();
        assert!(found.is_empty(), "expected nothing: {found:?}");
    }

    /// All that came so far, replies aside: an answered method is the proof that nothing older is on its way.
    pub(crate) fn waiting(&self) -> Vec<Event> {
        self.ok(access_request());
        self.wire.borrow_mut().take_waiting(self.id)
    }

    /// Puts events back in front of those that wait.
    pub(crate) fn put_back(&self, events: Vec<Event>) {
        self.wire.borrow_mut().put_back(self.id, events);
    }

    /// queue.declare; gives name, ready messages and consumers.
    pub(crate) fn declare(&self, request: Method) -> (String, u32, u32) {
        match self.ok(request) {
            Method::Queue(amq_protocol::protocol::queue::AMQPMethod::DeclareOk(ok)) => {
                (ok.queue.to_string(), ok.message_count, ok.consumer_count)
            }
            other => panic!("{other:?}"),
        }
    }

    /// Declares a queue without flags and arguments.
    pub(crate) fn queue(&self, name: &str) {
        self.declare(declare(name, ""));
    }

    /// Ready messages and consumers of a queue.
    pub(crate) fn count(&self, queue: &str) -> (u32, u32) {
        let (_, messages, consumers) = self.declare(declare(queue, "passive"));
        (messages, consumers)
    }

    pub(crate) fn exists(&self, queue: &str) -> bool {
        self.send(declare(queue, "passive"));
        let reply = self.wire.borrow_mut().reply(self.id, "queue.declare".to_owned());
        match reply {
            Ok(_) => true,
            Err(close) => {
                assert_eq!(close.code, 404, "{close:?}");
                self.reopen();
                false
            }
        }
    }

    /// basic.consume; gives the tag.
    pub(crate) fn consume(&self, queue: &str, tag: &str, flags: &str) -> String {
        self.consuming(consume(queue, tag, flags))
    }

    pub(crate) fn consuming(&self, request: Method) -> String {
        match self.ok(request) {
            Method::Basic(basic::AMQPMethod::ConsumeOk(ok)) => ok.consumer_tag.to_string(),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn publish(&self, exchange: &str, key: &str, body: &str) {
        self.send(publish(exchange, key, body));
    }

    /// Publishes to a queue and waits for the queue to have it.
    pub(crate) fn fill(&self, queue: &str, bodies: &[&str]) {
        for body in bodies {
            self.send(publish("", queue, body));
        }
        self.ok(access_request());
    }

    /// The next event, which must be a confirm: its number, and whether it was an ack.
    pub(crate) fn confirm(&self) -> (u64, bool) {
        match self.next() {
            Event::Method(Method::Basic(basic::AMQPMethod::Ack(ack))) => (ack.delivery_tag, true),
            Event::Method(Method::Basic(basic::AMQPMethod::Nack(nack))) => (nack.delivery_tag, false),
            other => panic!("{other:?} instead of a confirm"),
        }
    }

    /// Confirms through `last`, spread out: one outcome per number.
    pub(crate) fn confirms(&self, last: u64) -> Vec<(u64, bool)> {
        let mut outcomes = std::collections::BTreeMap::new();
        let mut outstanding: std::collections::BTreeSet<u64> = (1..=last).collect();
        while !outstanding.is_empty() {
            let (tag, multiple, outcome) = match self.next() {
                Event::Method(Method::Basic(basic::AMQPMethod::Ack(ack))) => {
                    (ack.delivery_tag, ack.multiple, true)
                }
                Event::Method(Method::Basic(basic::AMQPMethod::Nack(nack))) => {
                    (nack.delivery_tag, nack.multiple, false)
                }
                other => panic!("{other:?} instead of a confirm"),
            };
            let covered: Vec<u64> = if multiple {
                outstanding
                    .iter()
                    .copied()
                    .filter(|number| *number <= tag)
                    .collect()
            } else {
                vec![tag]
            };
            assert!(covered.contains(&tag), "number {tag} was confirmed before");
            for number in covered {
                assert!(
                    outstanding.remove(&number),
                    "number {number} was confirmed before"
                );
                outcomes.insert(number, outcome);
            }
        }
        outcomes.into_iter().collect()
    }

    /// basic.get with manual acknowledgement.
    pub(crate) fn get(&self, queue: &str) -> Option<Message> {
        self.got(get(queue, ""))
    }

    pub(crate) fn got(&self, request: Method) -> Option<Message> {
        match self.call(request) {
            Event::Got(message) => Some(message),
            Event::Method(Method::Basic(basic::AMQPMethod::GetEmpty(_))) => None,
            other => panic!("{other:?} in answer to basic.get"),
        }
    }

    /// Takes all that is ready and gives the bodies.
    pub(crate) fn drain(&self, queue: &str) -> Vec<String> {
        std::iter::from_fn(|| self.got(get(queue, "no-ack")))
            .map(|message| message.text())
            .collect()
    }
}
