package common

import (
	"context"
	"database/sql"
	"encoding/json"
	"log"
	"time"

	"github.com/gomodule/redigo/redis"
	_ "github.com/lib/pq" // database/sql's driver "postgres"
)

// Tables opens the service's own database, with these tables; all its instances share it.
func Tables(schema string) *sql.DB {
	db, err := sql.Open("postgres", Variable("DB_URL"))
	if err != nil {
		log.Fatal(err)
	}
	db.SetMaxOpenConns(20)
	db.SetMaxIdleConns(5)
	db.SetConnMaxLifetime(5 * time.Minute)
	db.SetConnMaxIdleTime(time.Minute)
	// Two instances that start at once make them one after the other.
	err = Together(context.Background(), db, func(tx *sql.Tx) error {
		_, err := tx.Exec("select pg_advisory_xact_lock(1);" + schema)
		return err
	})
	if err != nil {
		log.Fatalf("no tables: %v", err) // lictor starts us again
	}
	return db
}

// Together writes all that `write` does, or nothing.
func Together(ctx context.Context, db *sql.DB, write func(tx *sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := write(tx); err != nil {
		_ = tx.Rollback()
		return err
	}
	return tx.Commit()
}

// Cache is Redis in front of tables. Without it everything is slower, and no worse.
type Cache struct{ pool *redis.Pool }

// NewCache dials when it is first needed.
func NewCache() Cache {
	address := Address("redis")
	return Cache{&redis.Pool{MaxIdle: 5, MaxActive: 20, IdleTimeout: time.Minute, Dial: func() (redis.Conn, error) {
		return redis.Dial("tcp", address,
			redis.DialConnectTimeout(time.Second), redis.DialReadTimeout(time.Second), redis.DialWriteTimeout(time.Second))
	}}}
}

func (c Cache) do(command string, arguments ...interface{}) (interface{}, error) {
	connection := c.pool.Get()
	defer connection.Close()
	return connection.Do(command, arguments...)
}

// Ping is whether it answers.
func (c Cache) Ping() error {
	_, err := c.do("PING")
	return err
}

// Remembered reads into `value` from the cache, or else by `read`, and keeps that for half a minute.
func (c Cache) Remembered(key string, value interface{}, read func() error) error {
	text, err := redis.Bytes(c.do("GET", key))
	if err == nil && json.Unmarshal(text, value) == nil {
		return nil
	}
	if err := read(); err != nil {
		return err
	}
	if text, err := json.Marshal(value); err == nil {
		_, _ = c.do("SETEX", key, 30, text)
	}
	return nil
}

// Forget is for what has changed. Where Redis is away it is over in half a minute by itself.
func (c Cache) Forget(key string) { _, _ = c.do("DEL", key) }
