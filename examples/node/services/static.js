'use strict';
// The files that `/static` leads to: no service of Consul's.

const path = require('node:path');
const express = require('express');

const server = express().disable('x-powered-by').use(express.static(path.join(__dirname, '../web'))).listen(Number(process.env.STATIC_PORT ?? 8080), '127.0.0.1');
process.once('SIGTERM', () => server.close());
