//! Who is let in: how many connections and channels are open by vhost and user, and the way to tell them that their
//! vhost, user or permissions changed. What management shows of connections is in `clients.rs`.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use ahash::AHashMap;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::broker::{
    definition::Name,
    limits::{Limit, is_reached},
};
use crate::server::ack_timers::{AckTimer, AckTimers};

/// What others tell a connection. Its task waits for [`Control::told`].
#[derive(Default)]
pub(super) struct Control {
    notify: Notify,
    told: Mutex<Told>,
}

/// Orders not yet carried out.
#[derive(Default)]
pub(super) struct Told {
    /// Close with 320 and this reason.
    pub(super) close: Option<String>,
    /// Permissions changed: consumers may have to go.
    pub(super) recheck: bool,
    /// Deliveries may have been held for too long.
    pub(super) timeouts: bool,
}

impl Control {
    /// Waits for orders.
    pub(super) async fn told(&self) -> Told {
        loop {
            self.notify.notified().await;
            let told = std::mem::take(&mut *self.told.lock());
            if told.close.is_some() || told.recheck || told.timeouts {
                return told;
            }
        }
    }

    /// Deliveries may have been held for too long.
    pub(super) fn check_timeouts(&self) {
        self.tell(|told| told.timeouts = true);
    }

    /// Closes this connection.
    pub(super) fn close(&self, reason: &str) {
        self.tell(|told| told.close = Some(reason.to_owned()));
    }

    #[cfg(test)]
    pub(super) fn is_told(&self) -> bool {
        self.told.lock().close.is_some()
    }

    fn tell(&self, order: impl FnOnce(&mut Told)) {
        order(&mut self.told.lock());
        self.notify.notify_one();
    }
}

struct Open {
    user: Name,
    vhost: Name,
    control: Arc<Control>,
}

#[derive(Default)]
struct Table {
    next: u64,
    open: AHashMap<u64, Open>,
    by_vhost: AHashMap<Name, usize>,
    by_user: AHashMap<Name, PerUser>,
}

#[derive(Default)]
struct PerUser {
    connections: usize,
    channels: Arc<AtomicUsize>,
}

#[derive(Default)]
pub(super) struct Admissions {
    table: Mutex<Table>,
    /// Of the whole broker.
    channels: Arc<AtomicUsize>,
    /// For channels whose consumers may not take for ever.
    pub(super) ack_timers: Arc<AckTimers>,
}

/// Which limits a connection must not exceed.
#[derive(Clone, Copy, Default)]
pub(super) struct Room {
    pub(super) node: Limit,
    pub(super) vhost: Limit,
    pub(super) user: Limit,
}

/// Which limit is reached, with its value.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Full {
    Node(u64),
    Vhost(u64),
    User(u64),
}

/// An admitted connection; dropping it makes room for another.
pub(super) struct Ticket {
    admissions: Arc<Admissions>,
    id: u64,
    pub(super) control: Arc<Control>,
    /// Channels of the same user, on all connections.
    user_channels: Arc<AtomicUsize>,
}

/// One open channel; dropping it makes room for another.
pub(super) struct ChannelSlot([Arc<AtomicUsize>; 2]);

impl Drop for ChannelSlot {
    fn drop(&mut self) {
        for count in &self.0 {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Ticket {
    /// Channels open: the user's, the broker's.
    pub(super) fn channels(&self) -> (usize, usize) {
        (
            self.user_channels.load(Ordering::Relaxed),
            self.admissions.channels.load(Ordering::Relaxed),
        )
    }

    /// For a channel of this connection.
    pub(super) fn ack_timer(&self) -> AckTimer {
        AckTimer::new(&self.admissions.ack_timers, &self.control)
    }

    /// Counts one more channel.
    pub(super) fn open_channel(&self) -> ChannelSlot {
        let counts = [
            Arc::clone(&self.user_channels),
            Arc::clone(&self.admissions.channels),
        ];
        for count in &counts {
            count.fetch_add(1, Ordering::Relaxed);
        }
        ChannelSlot(counts)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut table = self.admissions.table.lock();
        let Some(open) = table.open.remove(&self.id) else {
            return;
        };
        if let Some(count) = table.by_vhost.get_mut(&open.vhost) {
            *count -= 1;
            if *count == 0 {
                table.by_vhost.remove(&open.vhost);
            }
        }
        if let Some(user) = table.by_user.get_mut(&open.user) {
            user.connections -= 1;
            // Channels of the connection that ends are gone or about to go: their slots hold the counter.
            if user.connections == 0 {
                table.by_user.remove(&open.user);
            }
        }
    }
}

impl Admissions {
    /// Lets a connection in unless a limit is reached; the three are checked in this order: node, vhost, user.
    pub(super) fn admit(self: &Arc<Self>, user: &Name, vhost: &Name, limits: Room) -> Result<Ticket, Full> {
        let mut table = self.table.lock();
        if let Some(limit) = is_reached(limits.node, table.open.len()) {
            return Err(Full::Node(limit));
        }
        let count = table.by_vhost.get(vhost).copied().unwrap_or(0);
        if let Some(limit) = is_reached(limits.vhost, count) {
            return Err(Full::Vhost(limit));
        }
        let count = table.by_user.get(user).map_or(0, |user| user.connections);
        if let Some(limit) = is_reached(limits.user, count) {
            return Err(Full::User(limit));
        }
        table.next += 1;
        let id = table.next;
        let control = Arc::<Control>::default();
        let open = Open {
            user: Name::clone(user),
            vhost: Name::clone(vhost),
            control: Arc::clone(&control),
        };
        table.open.insert(id, open);
        *table.by_vhost.entry(Name::clone(vhost)).or_default() += 1;
        let per_user = table.by_user.entry(Name::clone(user)).or_default();
        per_user.connections += 1;
        let user_channels = Arc::clone(&per_user.channels);
        drop(table);
        Ok(Ticket {
            admissions: Arc::clone(self),
            id,
            control,
            user_channels,
        })
    }

    /// Closes a vhost's connections.
    pub(super) fn close_vhost(&self, vhost: &str, reason: &str) {
        self.tell(
            |open| &*open.vhost == vhost,
            |told| told.close = Some(reason.to_owned()),
        );
    }

    /// Closes a user's connections.
    pub(super) fn close_user(&self, user: &str, reason: &str) {
        self.tell(
            |open| &*open.user == user,
            |told| told.close = Some(reason.to_owned()),
        );
    }

    /// A user's permissions changed.
    pub(super) fn recheck(&self, user: &str) {
        self.tell(|open| &*open.user == user, |told| told.recheck = true);
    }

    fn tell(&self, which: impl Fn(&Open) -> bool, order: impl Fn(&mut Told)) {
        let table = self.table.lock();
        for open in table.open.values().filter(|open| which(open)) {
            open.control.tell(&order);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_count_what_is_open_and_a_ticket_gives_its_place_back() {
        let connections = Arc::<Admissions>::default();
        let (a, v, w): (Name, Name, Name) = ("a".into(), "v".into(), "w".into());
        let limits = Room {
            node: Some(3),
            vhost: Some(1),
            user: Some(2),
        };
        let first = connections.admit(&a, &v, limits).ok();
        assert!(first.is_some());
        assert_eq!(connections.admit(&a, &v, limits).err(), Some(Full::Vhost(1)));
        let second = connections.admit(&a, &w, limits).ok();
        assert!(second.is_some());
        assert_eq!(
            connections.admit(&a, &"x".into(), limits).err(),
            Some(Full::User(2))
        );
        let third = connections.admit(&"b".into(), &"x".into(), limits).ok();
        assert_eq!(
            connections.admit(&"c".into(), &"y".into(), limits).err(),
            Some(Full::Node(3))
        );
        drop((first, third));
        assert!(connections.admit(&a, &v, limits).is_ok());
        let none = Room {
            vhost: Some(0),
            ..Room::default()
        };
        assert_eq!(
            connections.admit(&a, &"z".into(), none).err(),
            Some(Full::Vhost(0))
        );
        let lifted = Room {
            vhost: Some(-1),
            ..Room::default()
        };
        assert!(connections.admit(&a, &"z".into(), lifted).is_ok());
    }

    #[test]
    fn channels_are_counted_over_a_users_connections() {
        let connections = Arc::<Admissions>::default();
        let (a, v): (Name, Name) = ("a".into(), "v".into());
        let admit = |user| connections.admit(user, &v, Room::default()).ok().unwrap();
        let (one, two, other) = (admit(&a), admit(&a), admit(&"b".into()));
        let slots = [one.open_channel(), two.open_channel(), other.open_channel()];
        assert_eq!(one.channels(), (2, 3));
        drop(slots);
        assert_eq!(two.channels(), (0, 0));
    }
}
