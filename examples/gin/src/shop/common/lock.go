package common

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"log"
	"net/http"
	"strings"
	"time"
)

// Alone has `work` run in one of all instances at a time: in the one with the lock, until `held` is over. The lock is a request to lictor that stays open.
func Alone(name string, work func(held context.Context, token int64)) {
	leaving.Add(1)
	defer leaving.Done()
	for stopping.Err() == nil {
		if err := hold(name, work); err != nil && stopping.Err() == nil {
			log.Printf("lock %s: %v", name, err)
			time.Sleep(time.Second)
		}
	}
}

func hold(name string, work func(held context.Context, token int64)) error {
	open, end := context.WithCancel(context.Background())
	defer end()
	owner := make(chan string, 1)
	go giveBack(open, end, name, owner)
	// Consul takes no ttl below 10 s, lictor no delay below 5 s; late writes are refused anyway (Fenced).
	response, err := own(open, http.MethodPut, "/v1/locks/"+name+"?ttl=10s&wait=1m&delay=5s", nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusConflict {
		return nil // somebody has it still
	}
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	lines, event := bufio.NewScanner(response.Body), ""
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ": ")
		if field == "event" {
			event = value
		} else if field == "data" && event != "held" {
			return errors.New(event + " " + value)
		} else if field == "data" {
			var lock struct {
				Token int64  `json:"fencing_token"`
				Owner string `json:"owner"`
			}
			if err := json.Unmarshal([]byte(value), &lock); err != nil {
				return err
			}
			log.Printf("lock %s: held, token %d", name, lock.Token)
			owner <- lock.Owner
			held, lost := context.WithCancel(stopping)
			over := make(chan struct{})
			defer func() { lost(); <-over }()
			go func() { work(held, lock.Token); close(over) }()
		}
	}
	return errors.New("lost with its request")
}

// giveBack is for an instance that stops: the next one has the lock at once.
func giveBack(open context.Context, end func(), name string, owner chan string) {
	defer end()
	select {
	case <-open.Done():
		return
	case <-stopping.Done():
	}
	select {
	case id := <-owner:
		if response, err := own(open, http.MethodDelete, "/v1/locks/"+name+"?owner="+id, nil); err == nil {
			response.Body.Close()
		}
	default: // it is not ours yet
	}
}

// Fences is the table behind Fenced.
const Fences = `
create table if not exists fences (lock text primary key, token bigint not null);`

// ErrLate is for who had the lock once, and does not know yet that somebody else has it.
var ErrLate = errors.New("a later holder of the lock has written")

// Fenced writes as the holder of a lock. Nothing is written once a later holder, who has a greater token, has.
func Fenced(ctx context.Context, db *sql.DB, lock string, token int64, write func(tx *sql.Tx) error) error {
	return Together(ctx, db, func(tx *sql.Tx) error {
		first, err := changed(tx.Exec(`insert into fences values ($1, $2)
			on conflict (lock) do update set token = excluded.token where fences.token <= excluded.token`, lock, token))
		if err != nil {
			return err
		}
		if !first {
			return ErrLate
		}
		return write(tx)
	})
}
