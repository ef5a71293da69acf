// `node node_clients.js h1|h2 URL`: 50 requests at once on one agent or session, a 1 MiB upload, a 204.
const [kind, url] = process.argv.slice(2);
const http = require('http');
const http2 = require('http2');
const assert = require('assert');

const large = Buffer.alloc(1 << 20, 'x');

function read(stream) {
  return new Promise((resolve, reject) => {
    const chunks = [];
    stream.on('data', (chunk) => chunks.push(chunk)).on('error', reject);
    stream.on('end', () => resolve(Buffer.concat(chunks).toString()));
  });
}

function h1(agent, method, path, body) {
  return new Promise((resolve, reject) => {
    const request = http.request(url + path, { agent, method, headers: body ? { 'Content-Length': body.length } : {} });
    request.on('error', reject);
    request.on('response', async (answer) => resolve([answer.statusCode, await read(answer)]));
    request.end(body);
  });
}

function h2(session, method, path, body) {
  return new Promise((resolve, reject) => {
    const stream = session.request({ ':method': method, ':path': path });
    let status;
    stream.on('response', (headers) => { status = headers[':status']; });
    stream.on('error', reject);
    read(stream).then((text) => resolve([status, text]), reject);
    stream.end(body);
  });
}

async function main() {
  const agent = kind === 'h1' ? new http.Agent({ keepAlive: true, maxSockets: 4 }) : http2.connect(url);
  const send = kind === 'h1' ? h1 : h2;
  const all = await Promise.all([...Array(50).keys()].map((n) => send(agent, 'GET', `/item/${n}`)));
  all.forEach(([status, text], n) => {
    assert.strictEqual(status, 200);
    assert.strictEqual(JSON.parse(text).path, `/item/${n}`);
  });
  const [status, text] = await send(agent, 'PUT', '/upload', large);
  assert.deepStrictEqual([status, JSON.parse(text).body], [200, large.length]);
  assert.deepStrictEqual(await send(agent, 'GET', '/status/204'), [204, '']);
  if (kind === 'h1') agent.destroy(); else agent.close();
  console.log('fine');
}

main().catch((error) => { console.error(error); process.exit(1); });
