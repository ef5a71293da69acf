// The public cache tests' client, on one thread, with Node's own HTTP instead of a fetch that caches or follows by itself.
// SUITE BASE: prints every test's kind and result as JSON.

import http from 'node:http'
import { pathToFileURL } from 'node:url'

const [folder, base] = process.argv.slice(2)
const load = file => import(pathToFileURL(`${folder}/${file}`))

// Each request has a connection of its own, so that no answer waits for another.
function fetch (url, { method = 'GET', headers = [], body } = {}) {
  return new Promise((resolve, reject) => {
    const request = http.request(url, { method, agent: false })
    const names = new Set(headers.map(([name]) => name.toLowerCase()))
    for (const name of names) {
      const values = headers.filter(([other]) => other.toLowerCase() === name).map(([, value]) => value)
      request.setHeader(name, values.length === 1 ? values[0] : values)
    }
    request.on('error', reject)
    request.on('response', response => {
      const chunks = []
      response.on('data', chunk => chunks.push(chunk))
      response.on('error', reject)
      response.on('end', () => {
        const told = new Headers()
        for (let i = 0; i < response.rawHeaders.length; i += 2) told.append(response.rawHeaders[i], response.rawHeaders[i + 1])
        const text = Buffer.concat(chunks).toString()
        resolve({ status: response.statusCode, statusText: response.statusMessage, headers: told, text: async () => text })
      })
    })
    request.end(body)
  })
}

const { runTests, getResults } = await load('client/runner.mjs')
const suites = [...(await load('tests/index.mjs')).default, (await load('tests/surrogate-control.mjs')).default]
await runTests(suites, fetch, false, base, 25)
const results = getResults()
const told = suites.flatMap(suite => suite.tests).filter(test => !test.browser_only).map(test => {
  const result = results[test.id]
  const [passed, why] = result === true ? [true, ''] : [false, (result || ['not run', '']).join(': ')]
  return { id: test.id, kind: test.kind || 'required', passed, why }
})
console.log(JSON.stringify(told))
