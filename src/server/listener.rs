//! Accepts clients and runs each one's life: handshake, then connection.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::BytesMut;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tracing::Instrument;

use crate::server::{
    Broker,
    clients::{Client, Introduction},
    connection::{Connection, End},
    handshake::{Established, Handshake, Refusal},
    outbox::{Outbox, write_loop},
    sampler::now_ms,
    stats::add_one,
};

const BACKLOG: i32 = 1024;
/// After accept failed for want of file descriptors, a pause: retrying at once would only burn CPU.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An idle socket is probed after this, and again at this interval.
const PROBE_AFTER: Duration = Duration::from_secs(60);
const PROBE_INTERVAL: Duration = Duration::from_secs(15);

/// Binds; an IPv6 wildcard takes IPv4 too.
///
/// # Errors
/// The system's, when the address is taken or not ours.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Runs until aborted.
pub(super) async fn accept_loop(broker: Arc<Broker>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => {
                let span = tracing::info_span!("connection", %peer, user = tracing::field::Empty, vhost = tracing::field::Empty);
                tokio::spawn(client(Arc::clone(&broker), socket, peer).instrument(span));
            }
            Err(error) => {
                tracing::error!(%error, "cannot accept a connection; trying again (with too many open files: raise LimitNOFILE, or ulimit -n)");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Sets a client's socket up.
fn prepare(socket: &TcpStream, dead_peer_timeout: Duration) -> io::Result<()> {
    // Nagle's algorithm would hold small frames back for tens of milliseconds.
    socket.set_nodelay(true)?;
    // Peers that vanished without a word, for those who switched heartbeats off: probes when nothing is on its way,
    // and a bound on how long what is on its way may stay unacknowledged (hostile-input F18, H49).
    let probes = TcpKeepalive::new()
        .with_time(PROBE_AFTER)
        .with_interval(PROBE_INTERVAL);
    SockRef::from(socket).set_tcp_keepalive(&probes)?;
    if !dead_peer_timeout.is_zero() {
        let timeout_ms = u32::try_from(dead_peer_timeout.as_millis()).unwrap_or(u32::MAX);
        rustix::net::sockopt::set_tcp_user_timeout(socket, timeout_ms)?;
    }
    Ok(())
}

async fn client(broker: Arc<Broker>, mut socket: TcpStream, peer: SocketAddr) {
    if let Err(error) = prepare(&socket, broker.limits().dead_peer_timeout) {
        tracing::debug!(%error, "socket options");
    }
    let mut input = BytesMut::new();
    let established = {
        let mut handshake = Handshake {
            broker: &broker,
            socket: &mut socket,
            input: &mut input,
            peer,
        };
        let mut shutdown = broker.shutdown_signal();
        tokio::select! {
            result = tokio::time::timeout(broker.limits().handshake_timeout, handshake.run()) => result,
            _ = shutdown.wait_for(Option::is_some) => return,
        }
    };
    let established = match established {
        Ok(Ok(established)) => established,
        Ok(Err(Refusal::Silent)) => return tracing::debug!("closed before a byte was sent"),
        Ok(Err(refusal)) => return tracing::warn!(%refusal, "no connection"),
        Err(_) => {
            return tracing::warn!("the handshake took too long; amqp.handshake_timeout_ms is its limit");
        }
    };
    let span = tracing::Span::current();
    span.record("user", &*established.user);
    span.record("vhost", &*established.vhost.name);
    let name = established.name.clone().unwrap_or_default();
    tracing::info!(name, "connection opened");
    let heartbeat = established.heartbeat;
    // Held until the last byte is written.
    let ticket = Arc::clone(&established.ticket);
    let introduction = introduce(&established, peer, socket.local_addr().unwrap_or(peer));
    let (read, write) = socket.into_split();
    let outbox = Outbox::new();
    let client = broker.connections.add(introduction, Arc::clone(&outbox));
    let id = client.id;
    add_one(&broker.queues.churn.connections_created);
    let writer = tokio::spawn(write_loop(Arc::clone(&outbox), write, heartbeat).in_current_span());
    let told = Arc::clone(&client);
    announce(&broker, "connection.created", &told);
    let connection = Connection::new(Arc::clone(&broker), client, established);
    let end = connection.serve(read, input).await;
    // The writer ends by itself: its outbox is closed. A peer that reads nothing must not hold it for ever.
    if tokio::time::timeout(Duration::from_secs(5), writer)
        .await
        .is_err()
    {
        outbox.abandon();
    }
    drop(ticket);
    broker.connections.remove(id);
    announce(&broker, "connection.closed", &told);
    add_one(&broker.queues.churn.connections_closed);
    match end {
        End::ByClient => tracing::info!(name, "connection closed"),
        End::Dropped(reason) => tracing::warn!(name, reason, "connection ended without connection.close"),
        End::Closed(reason) => tracing::warn!(name, reason, "connection closed by the broker"),
        End::MissedHeartbeats(interval) => {
            tracing::warn!(
                name,
                "missed heartbeats from client, timeout: {}s; it hangs, or the network between",
                interval.as_secs()
            );
        }
    }
}

/// Tells the event exchange of a connection.
fn announce(broker: &Broker, event: &'static str, client: &Client) {
    broker.queues.announcer.event(event, |headers| {
        headers
            .text("name", &client.name)
            .text("user", &client.user)
            .text("vhost", &client.vhost)
            .text("protocol", "{0,9,1}")
            .text("auth_mechanism", &client.mechanism)
            .text("host", &client.here.ip().to_string())
            .number("port", client.here.port().into())
            .text("peer_host", &client.peer.ip().to_string())
            .number("peer_port", client.peer.port().into())
            .flag("ssl", false)
            .number("channel_max", client.channel_max.into())
            .number("frame_max", client.frame_max.into())
            .number("timeout", client.heartbeat_s)
            .number("connected_at", client.connected_at)
            .table("client_properties", &client.properties)
            .text("user_who_performed_action", &client.user);
    });
}

/// What management shows of the connection.
fn introduce(established: &Established, peer: SocketAddr, here: SocketAddr) -> Introduction {
    Introduction {
        peer,
        here,
        user: established.user.to_string(),
        vhost: established.vhost.name.to_string(),
        mechanism: established.mechanism.clone(),
        properties: established.properties.clone(),
        channel_max: established.channel_max,
        frame_max: established.frame_max,
        heartbeat_s: established.heartbeat.as_secs(),
        connected_at: now_ms(),
    }
}
