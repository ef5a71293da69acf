package common

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/gin-gonic/gin"
)

// Part is what of an operation belongs to one transaction (TCC): `Try` takes, `Cancel` gives back.
type Part struct {
	Transaction string          `json:"transaction" binding:"required,max=100"`
	Payload     json.RawMessage `json:"payload"`
}

// change is an effect on tables, of what was asked for.
type change = func(tx *sql.Tx, payload []byte) error

// Reservations is the table behind Participant.
const Reservations = `
create table if not exists reservations (transaction text primary key, state text not null, payload jsonb);`

// Participant serves POST path/try, path/confirm and path/cancel. Each may be asked again: it has its effect once. A cancel that comes
// before its try has the try refused.
func Participant(engine *gin.Engine, db *sql.DB, path string, take, giveBack change) {
	step := func(name string, do func(ctx context.Context, part Part) error) {
		engine.POST(path+"/"+name, Answer(http.StatusOK, func(c *gin.Context) (interface{}, error) {
			var part Part
			if err := Read(c, &part); err != nil {
				return nil, err
			}
			return gin.H{"transaction": part.Transaction}, do(c.Request.Context(), part)
		}))
	}
	step("try", func(ctx context.Context, part Part) error { return try(ctx, db, part, take) })
	step("confirm", func(ctx context.Context, part Part) error {
		return Together(ctx, db, func(tx *sql.Tx) error {
			if _, err := tx.Exec("update reservations set state = 'confirmed' where transaction = $1 and state = 'tried'", part.Transaction); err != nil {
				return err
			}
			return is(tx, part.Transaction, "confirmed")
		})
	})
	step("cancel", func(ctx context.Context, part Part) error { return cancel(ctx, db, part, giveBack) })
}

// Step serves what a saga asks: POST `do`, and POST `undo` for what that did. The key that lictor sends with each, SAGA:STEP:do or SAGA:STEP:undo, is
// kept with the effect: a step is done once, undone once, and not done any more once it is undone.
func Step(engine *gin.Engine, db *sql.DB, do, undo string, take, giveBack change) {
	step := func(path, suffix string, asked func(context.Context, *sql.DB, Part, change) error, effect change) {
		engine.POST(path, Answer(http.StatusOK, func(c *gin.Context) (interface{}, error) {
			var part Part
			if err := Read(c, &part.Payload); err != nil {
				return nil, err
			}
			key := c.GetHeader("Idempotency-Key")
			part.Transaction = strings.TrimSuffix(key, suffix)
			if part.Transaction == key || len(key) > 200 {
				return nil, Fail(http.StatusBadRequest, "invalid Idempotency-Key")
			}
			err := asked(c.Request.Context(), db, part, effect)
			var refusal Failure
			if errors.As(err, &refusal) && refusal.Status == http.StatusConflict {
				err = Fail(http.StatusUnprocessableEntity, refusal.Text) // 409 is that of who is still at work on the same: lictor would ask again
			}
			return gin.H{"transaction": part.Transaction}, err
		}))
	}
	step(do, ":do", try, take)
	step(undo, ":undo", cancel, giveBack)
}

func try(ctx context.Context, db *sql.DB, part Part, take change) error {
	return Together(ctx, db, func(tx *sql.Tx) error {
		made, err := changed(tx.Exec("insert into reservations values ($1, 'tried', $2) on conflict do nothing", part.Transaction, []byte(part.Payload)))
		if err != nil {
			return err
		}
		if made {
			return take(tx, part.Payload)
		}
		return is(tx, part.Transaction, "tried")
	})
}

func cancel(ctx context.Context, db *sql.DB, part Part, giveBack change) error {
	return Together(ctx, db, func(tx *sql.Tx) error {
		if _, err := tx.Exec("insert into reservations values ($1, 'cancelled') on conflict do nothing", part.Transaction); err != nil {
			return err
		}
		var payload []byte
		err := tx.QueryRow("update reservations set state = 'cancelled' where transaction = $1 and state = 'tried' returning payload", part.Transaction).Scan(&payload)
		if err == sql.ErrNoRows {
			return is(tx, part.Transaction, "cancelled")
		}
		if err != nil {
			return err
		}
		return giveBack(tx, payload)
	})
}

func changed(result sql.Result, err error) (bool, error) {
	if err != nil {
		return false, err
	}
	count, err := result.RowsAffected()
	return count > 0, err
}

func is(tx *sql.Tx, transaction, wanted string) error {
	state := "not known"
	err := tx.QueryRow("select state from reservations where transaction = $1", transaction).Scan(&state)
	if err != nil && err != sql.ErrNoRows {
		return err
	}
	if state != wanted {
		return Failure{http.StatusConflict, "transaction is " + state}
	}
	return nil
}
