'use strict';
// What services tell one another, on Redis. An event is written down with what it tells of, sent when Redis is there, and handled once by
// whichever instance is first: by its id, with what the handler writes.

const { randomUUID } = require('node:crypto');
const { setTimeout: after } = require('node:timers/promises');
const { createClient } = require('redis');
const { log } = require('./log');

const RETRIES = 3;
const RETRY_DELAY = Number(process.env.EVENTS_RETRY_DELAY ?? 1000); // ms, then twice and three times as long
const REMEMBERED = 24 * 3600 * 1000; // ms

const TABLES = `
  create table if not exists outbox (id text primary key, message text not null);
  create table if not exists handled (id text primary key, at integer not null);
  create table if not exists dead_letters (id text primary key, message text not null, subscriber text not null, error text not null, timestamp text not null);
`;

class Events {
  #sending = null;

  constructor(service, store) {
    this.service = service;
    this.store = store;
    store.together(() => store.database.exec(TABLES));
    const url = process.env.REDIS_URL ?? 'redis://localhost:6379';
    const socket = { connectTimeout: 1000, reconnectStrategy: (attempts) => Math.min(50 * 2 ** attempts, 1000) };
    this.publisher = createClient({ url, socket, disableOfflineQueue: true });
    this.subscriber = createClient({ url, socket });
    for (const client of [this.publisher, this.subscriber]) client.on('error', (error) => log('warn', `Redis: ${error.message || error.code}`));
    this.publisher.on('ready', () => this.#send());
  }

  /** Connects, now or when Redis is there; `handlers` are by topic. */
  start(handlers) {
    this.publisher.connect().catch(() => {});
    const listen = async () => {
      await this.subscriber.connect();
      for (const [topic, handler] of Object.entries(handlers)) await this.subscriber.subscribe(topic, (text) => this.#hear(handler, text));
    };
    listen().catch((error) => log('error', `Redis: ${error.message}`));
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
    for (const client of [this.publisher, this.subscriber]) if (client.isOpen) client.destroy();
  }

  /** All that is written down; what Redis does not take stays until it is there again. */
  #send() {
    this.#sending ??= this.#sendAll()
      .catch((error) => log('warn', `Redis: ${error.message}`))
      .finally(() => (this.#sending = null));
  }

  async #sendAll() {
    let rows = [];
    while (this.publisher.isReady && (rows = this.store.all('select id, message from outbox order by rowid limit 100')).length > 0) {
      for (const { id, message } of rows) {
        await this.publisher.publish(JSON.parse(message).topic, message);
        this.store.run('delete from outbox where id = ?', id);
      }
    }
  }

  async #hear(handler, text) {
    let message = null;
    try {
      message = JSON.parse(text);
    } catch {
      // It is told below.
    }
    if (typeof message?.id !== 'string') return log('error', 'heard what is no event');
    for (message.retryCount = 0; ; await after(RETRY_DELAY * message.retryCount)) {
      try {
        return this.store.together(() => this.#once(message.id) && handler(message.payload));
      } catch (error) {
        message.retryCount += 1;
        log('error', `${message.topic} ${message.id}: ${error.message}`);
        if (message.retryCount > RETRIES) return this.#bury(message, error);
      }
    }
  }

  #once(id) {
    this.store.run('delete from handled where at < ?', Date.now() - REMEMBERED);
    return this.store.run('insert or ignore into handled values (?, ?)', id, Date.now()).changes === 1;
  }

  #bury(message, error) {
    const letter = [message.id, JSON.stringify(message), this.service, error.message, new Date().toISOString()];
    this.store.run('insert or ignore into dead_letters values (?, ?, ?, ?, ?)', ...letter);
  }
}

module.exports = { Events };
