'use strict';
// What all services have: an express application, tables, events, the documents about them, and an orderly end.

const express = require('express');
const metrics = require('prom-client');
const { incoming } = require('./calls');
const { Events } = require('./events');
const { health } = require('./health');
const { log } = require('./log');
const { Refusal } = require('./refusal');
const { Store } = require('./store');

/** Starts a service on its port of this machine; `routes(app, store, events)` adds what it does, `handlers` hear topics. */
async function serve({ name, port, tables, routes, handlers = () => ({}) }) {
  metrics.register.setDefaultLabels({ service: name });
  metrics.collectDefaultMetrics();
  const store = new Store(name, tables);
  const events = new Events(name, store);
  const app = express();
  app.disable('x-powered-by');
  app.get('/health', async (req, res) => {
    const found = await health({ database: () => store.check(), redis: () => events.check() });
    res.status(found.status === 'healthy' ? 200 : 503).json(found);
  });
  app.get('/metrics', async (req, res) => res.type(metrics.register.contentType).send(await metrics.register.metrics()));
  app.use(express.json(), incoming);
  await routes(app, store, events);
  app.use((req, res) => res.status(404).json({ error: 'Not found' }));
  app.use(answerError);
  events.start(handlers(store, events));
  const server = app.listen(Number(process.env.SERVICE_PORT ?? port), '127.0.0.1', () => log('info', `listens on ${server.address().port}`));
  const stop = () => server.close(() => {
    events.stop();
    store.close();
    process.exit(0);
  });
  process.once('SIGTERM', stop).once('SIGINT', stop);
}

/** A handler of express 4 that may be asynchronous. */
const handle = (answer) => (req, res, next) => Promise.resolve().then(() => answer(req, res)).catch(next);

function answerError(error, req, res, next) {
  if (res.headersSent) return next(error);
  if (error instanceof Refusal) return res.status(error.status).json({ error: error.message });
  if (error.expose) return res.status(error.status).json({ error: error.message }); // the body was too long, or no JSON
  log('error', `${req.method} ${req.path}: ${error.stack}`);
  return res.status(500).json({ error: 'Internal server error' });
}

module.exports = { handle, serve };
