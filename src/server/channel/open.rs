//! A channel opens: what operators limit, and who is told.

use crate::broker::limits::is_reached;
use crate::protocol::{method::MethodId, reply_code::ReplyCode};
use crate::server::{close::Fault, connection::Connection};

impl Connection {
    /// Tells the event exchange of a channel.
    pub(in crate::server) fn announce_channel(&self, event: &'static str, number: u16) {
        self.broker.queues.announcer.event(event, |headers| {
            headers
                .text("name", &format!("{} ({number})", self.client.name))
                .text("connection", &self.client.name)
                .number("number", number.into())
                .text("user", &self.user)
                .text("vhost", &self.vhost.name)
                .text("user_who_performed_action", &self.user);
        });
    }

    /// Limits that operators set, beside the negotiated one (amqp-behaviour 1.6).
    pub(in crate::server) fn check_channel_limits(&self) -> Result<(), Fault> {
        let refuse = |text| Err(Fault::connection(ReplyCode::NotAllowed, text, MethodId::NONE));
        let user_max = self.broker.access().user(&self.user);
        let user_max = user_max.and_then(|user| user.limits.max_channels);
        let (of_user, of_node) = self.channels_open();
        if let Some(limit) = is_reached(user_max, of_user) {
            return refuse(format!(
                "number of channels opened for user '{}' has reached the maximum allowed user limit of {limit}",
                self.user
            ));
        }
        if let Some(limit) = is_reached(self.broker.limits().channel_max_per_node, of_node) {
            return refuse(format!(
                "number of channels opened on node '{}' has reached the maximum allowed limit of {limit}",
                self.broker.cluster_name()
            ));
        }
        Ok(())
    }
}
