'use strict';
// What services tell one another, on Redis' streams. An event is written down with what it tells of, and sent when Redis is there; of each
// service one instance handles it, once: its id is written down with what the handler writes.

const { randomUUID } = require('node:crypto');
const { setTimeout: after } = require('node:timers/promises');
const { createClient } = require('redis');
const { log } = require('./log');

const RETRIES = 3;
const RETRY_DELAY = Number(process.env.EVENTS_RETRY_DELAY ?? 1000); // ms, then twice and three times as long
const ABANDONED = 30_000; // ms: whoever had it has ended
const REMEMBERED = 24 * 3600 * 1000; // ms
const KEPT = 10_000; // of each topic

const TABLES = `
  create table if not exists outbox (id text primary key, message text not null);
  create table if not exists handled (id text primary key, at integer not null);
  create table if not exists dead_letters (id text primary key, message text not null, subscriber text not null, error text not null, timestamp text not null);
`;

class Events {
  #sending = null;
  #isOver = false;

  constructor(service, store) {
    this.service = service;
    this.store = store;
    this.consumer = randomUUID();
    store.together(() => store.database.exec(TABLES));
    const socket = { connectTimeout: 1000, reconnectStrategy: (attempts) => Math.min(50 * 2 ** attempts, 1000) };
    const client = () => createClient({ url: process.env.REDIS_URL ?? 'redis://localhost:6379', socket, disableOfflineQueue: true })
      .on('error', (error) => log('warn', `Redis: ${error.message || error.code}`));
    this.publisher = client().on('ready', () => this.#send());
    this.subscriber = client();
  }

  /** Connects, now or when Redis is there; `handlers` are by topic. */
  start(handlers) {
    this.publisher.connect().catch(() => {});
    if (Object.keys(handlers).length > 0) this.#listen(handlers);
  }

  /** Tells of something; within `store.together` if that is written, or not at all. */
  publish(topic, payload) {
    const message = { id: `msg_${randomUUID()}`, topic, payload, timestamp: new Date().toISOString(), retryCount: 0 };
    this.store.run('insert into outbox values (?, ?)', message.id, JSON.stringify(message));
    setImmediate(() => this.#send());
  }

  async check() {
    if (!this.publisher.isReady) throw new Error('Redis not connected');
    await this.publisher.ping();
    return { connected: true };
  }

  stop() {
    this.#isOver = true;
    for (const client of [this.publisher, this.subscriber]) if (client.isOpen) client.destroy();
  }

  /** All that is written down; what Redis does not take stays until it is there again. */
  #send() {
    if (this.#isOver) return;
    this.#sending ??= this.#sendAll()
      .catch((error) => log('warn', `Redis: ${error.message}`))
      .finally(() => (this.#sending = null));
  }

  async #sendAll() {
    let rows = [];
    const trim = { TRIM: { strategy: 'MAXLEN', strategyModifier: '~', threshold: KEPT } };
    while (this.publisher.isReady && (rows = this.store.all('select id, message from outbox order by rowid limit 100')).length > 0) {
      for (const { id, message } of rows) {
        await this.publisher.xAdd(JSON.parse(message).topic, '*', { message }, trim);
        this.store.run('delete from outbox where id = ?', id);
      }
    }
  }

  async #listen(handlers) {
    this.subscriber.connect().catch(() => {});
    while (!this.#isOver) {
      try {
        for (const topic of Object.keys(handlers)) await this.subscriber.xGroupCreate(topic, this.service, '0', { MKSTREAM: true }).catch(isThere);
        for (;;) await this.#hear(handlers);
      } catch (error) {
        if (this.subscriber.isReady) log('warn', `Redis: ${error.message}`);
        await after(100);
      }
    }
  }

  /** What comes within a second, and what another instance has not finished. */
  async #hear(handlers) {
    const heard = [];
    for (const topic of Object.keys(handlers)) {
      const { messages } = await this.subscriber.xAutoClaim(topic, this.service, this.consumer, ABANDONED, '0', { COUNT: 10 });
      heard.push({ name: topic, messages: messages.filter(Boolean) });
    }
    const topics = Object.keys(handlers).map((key) => ({ key, id: '>' }));
    heard.push(...((await this.subscriber.xReadGroup(this.service, this.consumer, topics, { COUNT: 10, BLOCK: 1000 })) ?? []));
    await Promise.all(heard.flatMap(({ name, messages }) => messages.map(async ({ id, message }) => {
      await this.#deliver(handlers[name], message.message);
      await this.subscriber.xAck(name, this.service, id);
    })));
  }

  async #deliver(handler, text) {
    const message = parsed(text);
    if (typeof message?.id !== 'string') return log('error', 'heard what is no event');
    for (message.retryCount = 0; ; await after(RETRY_DELAY * message.retryCount)) {
      try {
        return this.store.together(() => this.#isFirst(message.id) && handler(message.payload));
      } catch (error) {
        message.retryCount += 1;
        log('error', `${message.topic} ${message.id}: ${error.message}`);
        if (message.retryCount > RETRIES) return this.#bury(message, error);
      }
    }
  }

  #isFirst(id) {
    this.store.run('delete from handled where at < ?', Date.now() - REMEMBERED);
    return this.store.run('insert or ignore into handled values (?, ?)', id, Date.now()).changes === 1;
  }

  #bury(message, error) {
    const letter = [message.id, JSON.stringify(message), this.service, error.message, new Date().toISOString()];
    this.store.run('insert or ignore into dead_letters values (?, ?, ?, ?, ?)', ...letter);
  }
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** A group that is there already is no failure. */
function isThere(error) {
  if (!error.message.startsWith('BUSYGROUP')) throw error;
}

module.exports = { Events };
