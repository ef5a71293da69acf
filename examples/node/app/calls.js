'use strict';
// Calls of other services, at the addresses that lictor gives: no discovery, retries, breaker or tokens here.

const { AsyncLocalStorage } = require('node:async_hooks');
const axios = require('axios');
const { log } = require('./log');
const { Refusal } = require('./refusal');

/** What belongs to the request that is being answered, and goes along. */
const FORWARDED = ['traceparent', 'tracestate', 'x-request-id', 'x-request-timeout-ms', 'x-lictor-attempt', 'x-user-id', 'x-user-role'];
const current = new AsyncLocalStorage();
const incoming = (req, res, next) => current.run(req.headers, next);

class Service {
  constructor(url) {
    this.client = axios.create({ baseURL: url, timeout: 10_000, proxy: false, validateStatus: (status) => status === 200 || status === 404 });
  }

  /** What is at a path; null where there is nothing. */
  async get(path) {
    const from = current.getStore() ?? {};
    const headers = Object.fromEntries(FORWARDED.filter((name) => from[name]).map((name) => [name, from[name]]));
    try {
      const { status, data } = await this.client.get(path, { headers });
      return status === 404 ? null : data;
    } catch (error) {
      log('error', `GET ${path}: ${error.message}`);
      throw new Refusal(503, 'Service temporarily unavailable');
    }
  }
}

module.exports = {
  incoming,
  users: new Service(process.env.USER_SERVICE_URL ?? 'http://localhost:3001'),
  products: new Service(process.env.PRODUCT_SERVICE_URL ?? 'http://localhost:3002'),
  orders: new Service(process.env.ORDER_SERVICE_URL ?? 'http://localhost:3003'),
};
