'use strict';

const fs = require('node:fs');
const path = require('node:path');
const { DatabaseSync } = require('node:sqlite');
const { Counter } = require('prom-client');

const queries = new Counter({ name: 'database_queries_total', help: 'Queries', labelNames: ['operation', 'collection', 'status'] });

/** A service's own tables, which all its instances share. */
class Store {
  #isWriting = false;

  constructor(service, tables) {
    const data = process.env.DATA ?? path.join(__dirname, '../data');
    fs.mkdirSync(data, { recursive: true });
    this.database = new DatabaseSync(path.join(data, `${service}.sqlite`));
    this.database.exec('pragma busy_timeout = 5000; pragma foreign_keys = on');
    this.together(() => this.database.exec(tables));
  }

  /** Rows of a query. */
  all(sql, ...values) {
    return this.#counted(sql, (query) => query.all(...values));
  }

  /** The first row, or undefined. */
  one(sql, ...values) {
    return this.#counted(sql, (query) => query.get(...values));
  }

  /** How many rows it has changed, and the last id. */
  run(sql, ...values) {
    return this.#counted(sql, (query) => query.run(...values));
  }

  /** All of it is written, or nothing. */
  together(write) {
    if (this.#isWriting) return write();
    this.database.exec('begin immediate');
    this.#isWriting = true;
    try {
      const made = write();
      this.database.exec('commit');
      return made;
    } catch (error) {
      this.database.exec('rollback');
      throw error;
    } finally {
      this.#isWriting = false;
    }
  }

  check() {
    this.database.prepare('select 1').get();
    return { connected: true };
  }

  close() {
    this.database.close();
  }

  #counted(sql, ask) {
    const [operation] = sql.split(' ', 1);
    const [, collection] = /\b(?:from|into|update) (\w+)/.exec(sql);
    try {
      const answer = ask(this.database.prepare(sql));
      queries.inc({ operation, collection, status: 'success' });
      return answer;
    } catch (error) {
      queries.inc({ operation, collection, status: 'error' });
      throw error;
    }
  }
}

/** Whether something is refused because there is one like it (SQLITE_CONSTRAINT_UNIQUE). */
const isTaken = (error) => error.errcode === 2067;

module.exports = { Store, isTaken };
