// A gRPC server that echoes; at a line on its input it says GOAWAY on every connection and ends when its calls have.
const server = require('http2').createServer();
const sessions = new Set();
server.on('session', (session) => sessions.add(session));
server.on('stream', (stream) => {
  const chunks = [];
  stream.on('error', () => {});
  stream.on('data', (chunk) => chunks.push(chunk));
  stream.on('end', () => {
    stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
    stream.end(Buffer.concat(chunks));
  });
});
server.listen(0, '127.0.0.1', () => console.log(`127.0.0.1:${server.address().port}`));
process.stdin.once('data', () => {
  server.close(() => process.exit(0));
  for (const session of sessions) session.close();
});
