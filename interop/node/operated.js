// What operators set while clients are at work, with amqplib: policies, permissions, tracing, alarms, secrets.
'use strict';

const amqplib = require('amqplib');
const assert = require('node:assert/strict');
const { execFile } = require('node:child_process');
const { once } = require('node:events');
const { promisify } = require('node:util');
const {
  unique, onChannel, declare, declared, publish, ready, range, bodies, consume, soon, refusal,
} = require('./common.js');

/** One call of the HTTP API; fails on a status that is not a success. */
async function http(method, path, body) {
  const answer = await fetch(`${process.env.INTEROP_HTTP}/api/${path}`, {
    method,
    headers: { authorization: `Basic ${btoa('guest:guest')}`, 'content-type': 'application/json' },
    body: body && JSON.stringify(body),
  });
  assert.ok(answer.ok, `${method} ${path}: ${answer.status} ${await answer.text()}`);
}

/** Runs leveretctl, or rabbitmqctl. */
async function control(...args) {
  const [program, ...first] = JSON.parse(process.env.INTEROP_CTL);
  await promisify(execFile)(program, [...first, ...args], { timeout: 30_000 });
}

/** Runs the body under a policy, and takes the policy away. */
async function policed(name, pattern, definition, applyTo, body) {
  const path = `policies/%2F/${unique(name)}`;
  await http('PUT', path, { pattern: `^${pattern}$`, definition, 'apply-to': applyTo });
  await body().finally(() => http('DELETE', path));
}

async function policies(uri) {
  await onChannel(uri, async (channel) => {
    const [queue, dead] = [await declare(channel, 'policed'), await declare(channel, 'policed-dead')];
    for (const body of ['a', 'b', 'c']) channel.sendToQueue(queue, Buffer.from(body), { persistent: true });
    await channel.waitForConfirms();
    const definition = { 'max-length': 2, 'dead-letter-exchange': '', 'dead-letter-routing-key': dead };
    await policed('limit', queue, definition, 'queues', async () => {
      await soon(async () => (await ready(channel, queue)) === 2, 'the policy shortened the queue');
      await soon(async () => (await ready(channel, dead)) === 1, 'and dead-lettered what was too much');
    });
    for (const body of ['d', 'e']) channel.sendToQueue(queue, Buffer.from(body), { persistent: true });
    await channel.waitForConfirms();
    assert.deepEqual(await bodies(channel, queue), ['b', 'c', 'd', 'e'], 'without the policy');
    for (const name of [queue, dead]) await channel.deleteQueue(name);
  });
}

async function operator_policies(uri) {
  await onChannel(uri, async (channel) => {
    const queue = await declared(channel, 'operated', { 'x-max-length': 10 });
    for (const number of range(5)) await publish(channel, queue, String(number));
    // Of argument, policy and operator policy the smallest number holds.
    const path = `operator-policies/%2F/${unique('operators')}`;
    await policed('users', queue, { 'max-length': 3 }, 'queues', async () => {
      await soon(async () => (await ready(channel, queue)) === 3, 'the policy shortened the queue');
      await http('PUT', path, { pattern: `^${queue}$`, definition: { 'max-length': 1 }, 'apply-to': 'queues' });
      await soon(async () => (await ready(channel, queue)) === 1, 'the operator policy shortened it more')
        .finally(() => http('DELETE', path));
    });
    assert.deepEqual(await bodies(channel, queue), ['4'], 'what is kept');
    await channel.deleteQueue(queue);
  });
}

async function limits(uri) {
  const [vhost, user] = [unique('small'), unique('limited')];
  const all = { configure: '.*', write: '.*', read: '.*' };
  await http('PUT', `users/${user}`, { password: 'secret', tags: '' });
  await http('PUT', `vhosts/${vhost}`, {});
  for (const it of ['%2F', vhost]) await http('PUT', `permissions/${it}/${user}`, all);
  await http('PUT', `vhost-limits/${vhost}/max-queues`, { value: 1 });
  await http('PUT', `vhost-limits/${vhost}/max-connections`, { value: 1 });
  await http('PUT', `user-limits/${user}/max-channels`, { value: 2 });
  const theirs = uri.replace('guest:guest@', `${user}:secret@`);
  try {
    await onChannel(`${theirs}/${vhost}`, async (channel, connection) => {
      await channel.assertQueue('only');
      const error = await refusal(connection, (other) => other.assertQueue('one too many'));
      assert.equal(error.code, 406);
      assert.match(error.message, /queue limit/);
      // RabbitMQ counts connections a little late.
      await soon(() => amqplib.connect(`${theirs}/${vhost}`).then(
        (second) => second.close().then(() => false),
        () => true, // amqplib does not show why
      ), 'a second connection is refused');
    });
    await onChannel(theirs, async (_, connection) => {
      const closed = once(connection, 'error');
      await connection.createChannel();
      await assert.rejects(connection.createChannel());
      const [error] = await closed;
      assert.equal(error.code, 530);
      assert.match(error.message, new RegExp(`number of channels opened for user '${user}'`));
    });
  } finally {
    await http('DELETE', `users/${user}`);
    await http('DELETE', `vhosts/${vhost}`);
  }
}

async function log_exchange(uri) {
  await onChannel(uri, async (channel) => {
    const log = await declare(channel, 'log');
    // RabbitMQ declares it a little after its start.
    await soon(() => http('GET', 'exchanges/%2F/amq.rabbitmq.log').then(() => true, () => false), 'it is there');
    await channel.bindQueue(log, 'amq.rabbitmq.log', 'info');
    const consumer = await consume(channel, log, { noAck: true });
    await (await amqplib.connect(uri, { clientProperties: { connection_name: unique('logged') } })).close();
    for (;;) {
      const { content, fields } = await consumer.next();
      assert.equal(fields.routingKey, 'info');
      if (content.includes(unique('logged'))) break;
    }
    await channel.deleteQueue(log);
  });
}

async function permissions(uri) {
  const user = unique('mallory');
  await http('PUT', `users/${user}`, { password: 'secret', tags: '' });
  await http('PUT', `permissions/%2F/${user}`, { configure: '^mine-', write: '^(mine-.*|amq\\.default)$', read: '^mine-' });
  const theirs = uri.replace('guest:guest@', `${user}:secret@`);
  try {
    await onChannel(theirs, async (channel, connection) => {
      const { queue } = await channel.assertQueue(`mine-${unique('queue')}`);
      channel.sendToQueue(queue, Buffer.from('allowed'));
      await channel.waitForConfirms();
      assert.deepEqual(await bodies(channel, queue), ['allowed']);
      for (const [what, step] of [
        ['configure', (other) => other.assertQueue('theirs')],
        ['write', (other) => other.publish('amq.fanout', '', Buffer.from(''))],
        ['read', (other) => other.bindQueue(queue, 'amq.topic', '#')],
      ]) {
        const error = await refusal(connection, step);
        assert.equal(error.code, 403, `${what}: ${error.message}`);
        assert.match(error.message, new RegExp(`ACCESS_REFUSED.*refused for user '${user}'`));
      }
      await channel.deleteQueue(queue);
    });
  } finally {
    await http('DELETE', `users/${user}`);
  }
  await assert.rejects(amqplib.connect(theirs), /ACCESS_REFUSED/);
}

async function firehose(uri) {
  await onChannel(uri, async (channel) => {
    const [queue, trace] = [await declare(channel, 'traced'), await declare(channel, 'trace')];
    const { exchange } = await channel.assertExchange(unique('source'), 'fanout');
    await channel.bindQueue(trace, 'amq.rabbitmq.trace', `publish.${exchange}`);
    await channel.bindQueue(trace, 'amq.rabbitmq.trace', `deliver.${queue}`);
    await channel.bindQueue(queue, exchange, '');
    await control('trace_on');
    try {
      channel.publish(exchange, 'key', Buffer.from('watched'), { messageId: 'm' });
      await (await consume(channel, queue)).next();
      const traces = await (await consume(channel, trace)).take(2);
      const published = traces.find((it) => it.fields.routingKey.startsWith('publish.'));
      assert.deepEqual(published.properties.headers.routing_keys, ['key']);
      assert.deepEqual(published.properties.headers.routed_queues, [queue]);
      assert.equal(published.properties.headers.properties.message_id, 'm');
      const delivered = traces.find((it) => it.fields.routingKey.startsWith('deliver.'));
      assert.equal(delivered.properties.headers.redelivered, 0);
      assert.equal(delivered.content.toString(), 'watched');
    } finally {
      await control('trace_off');
    }
    for (const name of [queue, trace]) await channel.deleteQueue(name);
    await channel.deleteExchange(exchange);
  });
}

async function event_exchange(uri) {
  await onChannel(uri, async (channel) => {
    const events = await declare(channel, 'events');
    await channel.bindQueue(events, 'amq.rabbitmq.event', 'queue.*');
    await channel.bindQueue(events, 'amq.rabbitmq.event', 'consumer.*');
    const consumer = await consume(channel, events, { noAck: true });
    const { queue } = await channel.assertQueue(unique('watched'));
    const { consumerTag } = await channel.consume(queue, () => {});
    await channel.cancel(consumerTag);
    await channel.deleteQueue(queue);
    const missing = new Set(['queue.created', 'consumer.created', 'consumer.deleted', 'queue.deleted']);
    while (missing.size > 0) {
      const { fields, properties: { headers } } = await consumer.next();
      if ([headers.name, headers.queue].includes(queue)) missing.delete(fields.routingKey);
    }
    await channel.deleteQueue(events);
  });
}

async function update_secret(uri) {
  await onChannel(uri, async (channel, connection) => {
    await connection.updateSecret(Buffer.from('a new secret'), 'the old one expired');
    await channel.deleteQueue(await declare(channel, 'secret'));
  });
}

async function blocked(uri) {
  await onChannel(uri, async (channel, connection) => {
    const queue = await declare(channel, 'blocked');
    const told = [];
    connection.on('blocked', (reason) => told.push(reason));
    connection.on('unblocked', () => told.push('unblocked'));
    await control('set_vm_memory_high_watermark', '0');
    try {
      channel.sendToQueue(queue, Buffer.from('held up'));
      await soon(() => told.length === 1, 'the client is told');
      assert.match(String(told[0].reason ?? told[0]), /low on memory/);
    } finally {
      await control('set_vm_memory_high_watermark', '0.6');
    }
    await soon(() => told.length === 2, 'the end of the alarm is told');
    await channel.waitForConfirms();
    assert.deepEqual(await bodies(channel, queue), ['held up']);
    await channel.deleteQueue(queue);
  });
}

module.exports = {
  policies,
  operator_policies,
  permissions,
  limits,
  firehose,
  event_exchange,
  log_exchange,
  update_secret,
  blocked,
};
