// The public cache tests' server (its file is the argument), on loopback alone and on a free port, which it prints.

import net from 'node:net'
import { pathToFileURL } from 'node:url'

const listen = net.Server.prototype.listen
net.Server.prototype.listen = function () { return listen.call(this, 0, '127.0.0.1') }
await import(pathToFileURL(process.argv[2]))
