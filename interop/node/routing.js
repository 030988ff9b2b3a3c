// Every kind of exchange and every way to route, with amqplib.
'use strict';

const assert = require('node:assert/strict');
const { unique, connected, onChannel, declare, get, ready, range, bodies, refusal } = require('./common.js');

const KEYS = 200;

const declareAll = async (channel, names) => {
  const queues = [];
  for (const name of names) queues.push(await declare(channel, name));
  return queues;
};

const deleteAll = async (channel, queues) => {
  for (const queue of queues) await channel.deleteQueue(queue);
};

/** An exchange of this run that goes with its last binding. */
const exchange = async (channel, name, kind, args) =>
  (await channel.assertExchange(unique(name), kind, { autoDelete: true, arguments: args })).exchange;

/** Publishes the keys to the exchange, twice, and returns what each queue got of each round. */
async function rounds(channel, source, queues, publish) {
  const found = [];
  for (const _ of range(2)) {
    for (const number of range(KEYS)) publish(`k${number}`);
    await channel.waitForConfirms();
    const round = [];
    for (const queue of queues) round.push(await bodies(channel, queue));
    found.push(round);
  }
  assert.equal(found[0].flat().length, KEYS, 'one queue each');
  return found;
}

async function consistent_hash(uri) {
  await onChannel(uri, async (channel) => {
    const queues = await declareAll(channel, ['hash-light', 'hash-heavy']);
    for (const [name, args, publish] of [
      ['hash-key', {}, (source) => (key) => channel.publish(source, key, Buffer.from(key))],
      ['hash-header', { 'hash-header': 'on' }, (source) => (key) =>
        channel.publish(source, '', Buffer.from(key), { headers: { on: key } })],
      ['hash-property', { 'hash-property': 'correlation_id' }, (source) => (key) =>
        channel.publish(source, '', Buffer.from(key), { correlationId: key })],
    ]) {
      const source = await exchange(channel, name, 'x-consistent-hash', args);
      await channel.bindQueue(queues[0], source, '1');
      await channel.bindQueue(queues[1], source, '3');
      const [first, second] = await rounds(channel, source, queues, publish(source));
      assert.deepEqual(second, first, 'a value goes the same way every time');
      const [few, many] = first.map((round) => round.length);
      assert.ok(few > 0 && few < many, `${name}: weights 1 and 3 shared ${few} and ${many}`);
    }
    await deleteAll(channel, queues);
  });
}

async function random_exchange(uri) {
  await onChannel(uri, async (channel) => {
    const queues = await declareAll(channel, ['random-0', 'random-1', 'random-2']);
    const source = await exchange(channel, 'random', 'x-random');
    for (const queue of queues) await channel.bindQueue(queue, source, 'ignored');
    const [first] = await rounds(channel, source, queues, (key) => channel.publish(source, '', Buffer.from(key)));
    assert.ok(first.every((round) => round.length > 0), 'every queue gets some');
    await deleteAll(channel, queues);
  });
}

async function modulus_hash(uri) {
  await onChannel(uri, async (channel) => {
    const queues = await declareAll(channel, ['modulus-0', 'modulus-1', 'modulus-2']);
    const source = await exchange(channel, 'modulus', 'x-modulus-hash');
    for (const queue of queues) await channel.bindQueue(queue, source, 'ignored');
    const [first, second] = await rounds(channel, source, queues, (key) => channel.publish(source, key, Buffer.from(key)));
    assert.deepEqual(second, first, 'a key goes the same way every time');
    assert.ok(first.every((round) => round.length > 0), 'every queue gets some');
    await deleteAll(channel, queues);
  });
}

async function recent_history(uri) {
  await onChannel(uri, async (channel) => {
    const [early, late] = await declareAll(channel, ['history-early', 'history-late']);
    const source = await exchange(channel, 'history', 'x-recent-history', { 'x-recent-history-length': 2 });
    await channel.bindQueue(early, source, '');
    for (const body of ['a', 'b', 'c']) channel.publish(source, '', Buffer.from(body));
    channel.publish(source, '', Buffer.from('unstored'), { headers: { 'x-recent-history-no-store': true } });
    await channel.waitForConfirms();
    await channel.bindQueue(late, source, '');
    assert.deepEqual(await bodies(channel, early), ['a', 'b', 'c', 'unstored']);
    assert.deepEqual((await bodies(channel, late)).sort(), ['b', 'c']);
    await deleteAll(channel, [early, late]);
  });
}

async function headers_matching(uri) {
  await onChannel(uri, async (channel) => {
    const [queue, anchor] = await declareAll(channel, ['headers-matching', 'headers-anchor']);
    const source = await exchange(channel, 'headers-kept', 'headers');
    await channel.bindQueue(anchor, source, '', { never: 'matches' });
    const both = { colour: 'red', 'x-size': 1 };
    for (const [match, wanted, found] of [
      ['all', both, ['both', 'one']], // headers that begin with x- do not count
      ['any', { colour: 'blue', 'x-size': 1 }, []],
      ['all-with-x', both, ['both']],
      ['any-with-x', { colour: 'blue', 'x-size': 1 }, ['both']],
    ]) {
      const args = { 'x-match': match, ...wanted };
      await channel.bindQueue(queue, source, '', args);
      channel.publish(source, '', Buffer.from('both'), { headers: both });
      channel.publish(source, '', Buffer.from('one'), { headers: { colour: 'red', 'x-size': 2 } });
      channel.publish(source, '', Buffer.from('other'), { headers: { shape: 'round' } });
      await channel.waitForConfirms();
      assert.deepEqual(await bodies(channel, queue), found, match);
      await channel.unbindQueue(queue, source, '', args);
    }
    await deleteAll(channel, [queue, anchor]);
  });
}

async function alternate_exchange(uri) {
  await onChannel(uri, async (channel) => {
    const [queue, lost] = await declareAll(channel, ['alternate-queue', 'alternate-lost']);
    const alternate = await exchange(channel, 'alternate', 'fanout');
    await channel.bindQueue(lost, alternate, '');
    const { exchange: source } = await channel.assertExchange(unique('alternated'), 'direct', { alternateExchange: alternate });
    await channel.bindQueue(queue, source, 'known');
    const returned = [];
    channel.on('return', (message) => returned.push(message));
    for (const key of ['known', 'unknown']) channel.publish(source, key, Buffer.from(key), { mandatory: true });
    await channel.waitForConfirms();
    assert.equal(returned.length, 0, 'the alternate exchange routed it, so it is not returned');
    assert.deepEqual([await bodies(channel, queue), await bodies(channel, lost)], [['known'], ['unknown']]);
    await channel.deleteExchange(source);
    await deleteAll(channel, [queue, lost]);
  });
}

async function exchange_cycle(uri) {
  await onChannel(uri, async (channel, connection) => {
    const queue = await declare(channel, 'cycle');
    const { exchange: inner } = await channel.assertExchange(unique('cycle-inner'), 'topic', { internal: true });
    const { exchange: outer } = await channel.assertExchange(unique('cycle-outer'), 'topic');
    await channel.bindExchange(inner, outer, '#');
    await channel.bindExchange(outer, inner, '#');
    await channel.bindQueue(queue, inner, '#');
    await channel.bindQueue(queue, outer, 'round');
    channel.publish(outer, 'round', Buffer.from('once'));
    await channel.waitForConfirms();
    assert.deepEqual(await bodies(channel, queue), ['once'], 'a cycle and two bindings bring one copy');
    const error = await refusal(connection, (other) => other.publish(inner, '', Buffer.from('from a client')));
    assert.equal(error.code, 403, error.message);
    for (const name of [inner, outer]) await channel.deleteExchange(name);
    await channel.deleteQueue(queue);
  });
}

async function carbon_copies(uri) {
  await onChannel(uri, async (channel, connection) => {
    const queues = await declareAll(channel, ['copies-to', 'copies-cc', 'copies-bcc']);
    const [to, cc, bcc] = queues;
    channel.sendToQueue(to, Buffer.from('copied'), { CC: [cc, to], BCC: [bcc], headers: { other: 1 } });
    await channel.waitForConfirms();
    for (const queue of queues) {
      const { properties, fields } = await get(channel, queue);
      assert.deepEqual(properties.headers, { CC: [cc, to], other: 1 }, 'BCC is taken away');
      assert.equal(fields.routingKey, to);
      assert.equal(await ready(channel, queue), 0, 'one copy each');
    }
    const error = await refusal(connection, (other) =>
      other.sendToQueue(to, Buffer.from(''), { headers: { CC: 'not a list' } }));
    assert.equal(error.code, 406, error.message);
    await deleteAll(channel, queues);
  });
}

module.exports = {
  consistent_hash,
  random_exchange,
  modulus_hash,
  recent_history,
  headers_matching,
  alternate_exchange,
  exchange_cycle,
  carbon_copies,
};
