// The same stand-in in Node, with the variables and addresses of the clients that it replaces.
const http = require('http');
const os = require('os');

const name = process.env.SERVICE_NAME || 'api-gateway';
const port = parseInt(process.env.SERVICE_PORT) || 3000;
const clients = {
  users: process.env.USER_SERVICE_URL || 'http://localhost:3001',
  products: process.env.PRODUCT_SERVICE_URL || 'http://localhost:3002',
  orders: process.env.ORDER_SERVICE_URL || 'http://localhost:3003',
};
// What each calls; a gateway calls whoever the path names.
const calls = { 'order-service': ['users', 'products'] };
const forwarded = ['traceparent', 'tracestate', 'x-request-id', 'x-request-timeout-ms', 'x-lictor-attempt'];

function ask(other, path, request) {
  const headers = Object.fromEntries(forwarded.filter((key) => request.headers[key]).map((key) => [key, request.headers[key]]));
  return fetch(clients[other] + path, { headers }).then(async (answer) => ({ status: answer.status, text: await answer.text() }));
}

const server = http.createServer(async (request, response) => {
  const reply = (status, text) => response.writeHead(status, { 'Content-Type': 'text/plain' }).end(text);
  try {
    if (request.url === '/health') return reply(200, 'healthy\n');
    const other = request.url.split('/')[2];
    if (name === 'api-gateway') {
      if (!clients[other]) return reply(404, 'no such route\n');
      const answer = await ask(other, request.url, request);
      return reply(answer.status, answer.text);
    }
    const answers = await Promise.all((calls[name] || []).map((one) => ask(one, `/api/${one}/1`, request)));
    const status = Math.max(200, ...answers.map((answer) => answer.status));
    reply(status, `${request.url} from ${name} on ${os.hostname()}\n${answers.map((answer) => answer.text).join('')}`);
  } catch (error) {
    reply(502, `${error.message}\n`);
  }
});
server.listen(port, '0.0.0.0');
process.on('SIGTERM', () => server.close(() => process.exit(0)));
