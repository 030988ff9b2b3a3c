// What ends by itself, what is accepted for old times' sake, and how much is too much, with amqplib.
'use strict';

const amqplib = require('amqplib');
const assert = require('node:assert/strict');
const { unique, connected, onChannel, declare, get, ready, range, bodies, consume, soon, refusal } = require('./common.js');

const MIB = 1024 * 1024;
async function auto_delete(uri) {
  await onChannel(uri, async (channel, connection) => {
    const { exchange } = await channel.assertExchange(unique('auto-delete'), 'fanout', { autoDelete: true });
    const { queue } = await channel.assertQueue(unique('auto-delete'), { durable: false, autoDelete: true });
    await channel.bindQueue(queue, exchange, '');
    const { consumerTag } = await channel.consume(queue, () => {});
    for (const step of [
      (other) => other.deleteQueue(queue, { ifUnused: true }),
      (other) => other.deleteExchange(exchange, { ifUnused: true }),
    ]) {
      const error = await refusal(connection, step);
      assert.equal(error.code, 406);
      assert.match(error.message, /in use/);
    }
    await channel.cancel(consumerTag);
    assert.equal((await refusal(connection, (other) => other.checkQueue(queue))).code, 404);
    assert.equal((await refusal(connection, (other) => other.checkExchange(exchange))).code, 404);
    const kept = await declare(channel, 'not-empty');
    channel.sendToQueue(kept, Buffer.from('left'));
    await channel.waitForConfirms();
    const error = await refusal(connection, (other) => other.deleteQueue(kept, { ifEmpty: true }));
    assert.equal(error.code, 406);
    assert.match(error.message, /not empty/);
    assert.equal((await channel.purgeQueue(kept)).messageCount, 1);
    assert.equal((await channel.deleteQueue(kept, { ifEmpty: true, ifUnused: true })).messageCount, 0);
  });
}

async function legacy_arguments(uri) {
  await onChannel(uri, async (channel) => {
    const args = { 'x-queue-mode': 'lazy', 'x-ha-policy': 'all', 'x-unheard-of': { a: [1, 'b'] } };
    const { queue: lazy } = await channel.assertQueue(unique('lazy'), { durable: true, arguments: args });
    await channel.assertQueue(lazy, { durable: true, arguments: { 'x-queue-mode': 'lazy' } }); // the rest is not compared
    const { queue: transient } = await channel.assertQueue(unique('transient'), { durable: false });
    await channel.prefetch(10, true);
    for (const queue of [lazy, transient]) {
      const consumer = await consume(channel, queue, { noLocal: true, arguments: { 'x-cancel-on-ha-failover': true } });
      channel.sendToQueue(queue, Buffer.from('taken'));
      assert.equal((await consumer.next()).content.toString(), 'taken', 'no-local is accepted, and means nothing');
      await channel.deleteQueue(queue);
    }
  });
}

async function size_limits(uri) {
  await onChannel(uri, async (channel, connection) => {
    const queue = await declare(channel, 'size-limits');
    const largest = Buffer.alloc(16 * MIB);
    channel.sendToQueue(queue, largest);
    await channel.waitForConfirms();
    const error = await refusal(connection, (other) => other.sendToQueue(queue, Buffer.alloc(largest.length + 1)));
    assert.equal(error.code, 406);
    assert.match(error.message, new RegExp(`is larger than configured max size ${largest.length}`));
    assert.equal((await get(channel, queue)).content.length, largest.length);
    await channel.deleteQueue(queue);
  });
  await onChannel(`${uri}?frameMax=4096&channelMax=3`, async (channel, connection) => {
    const queue = await declare(channel, 'small-frames');
    channel.sendToQueue(queue, Buffer.alloc(100_000));
    await channel.waitForConfirms();
    assert.equal((await get(channel, queue)).content.length, 100_000);
    await connection.createChannel();
    await connection.createChannel();
    await assert.rejects(connection.createChannel(), /No channels left/);
    await channel.deleteQueue(queue);
  });
}

async function slow_consumer(uri) {
  await onChannel(uri, async (channel) => {
    const [slow, fast] = [await declare(channel, 'slow'), await declare(channel, 'fast')];
    const stalled = await amqplib.connect(uri);
    stalled.on('error', () => {});
    await (await stalled.createChannel()).consume(slow, () => {}, { noAck: true });
    const socket = stalled.connection.stream;
    // From here on nobody reads it, and 48 MiB do not fit into it.
    socket.removeAllListeners('readable');
    for (const _ of range(48)) channel.sendToQueue(slow, Buffer.alloc(MIB));
    for (const number of range(100)) channel.sendToQueue(fast, Buffer.from(String(number)));
    await channel.waitForConfirms();
    assert.deepEqual((await bodies(channel, fast)).map(Number), range(100), 'another queue goes on');
    socket.destroy();
    for (const queue of [slow, fast]) await channel.deleteQueue(queue);
  });
}

async function heartbeats(uri) {
  await onChannel(`${uri}?heartbeat=1`, async (channel) => {
    // amqplib gives a connection up on which nothing came for two intervals.
    await new Promise((wake) => setTimeout(wake, 3000));
    const queue = await declare(channel, 'heartbeats');
    assert.equal(await ready(channel, queue), 0);
    await channel.deleteQueue(queue);
  });
}

module.exports = { auto_delete, legacy_arguments, size_limits, slow_consumer, heartbeats };
