package main

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/gin-gonic/gin"

	"shop/common"
)

// An order is a transaction of two services, by TCC: each has tried what is asked of it before any confirms, and all cancel where one
// refuses. It is `created`, then `completed`, or else `canceling` and `cancelled`; which, the orders' table says in one statement. What
// is decided and not yet done by all is done by whichever instance finds it, after a crash too.

type participant struct{ service, path string }

var participants = []participant{{"product-service", "/api/stock"}, {"user-service", "/api/credit"}}

func (p participant) step(ctx context.Context, name string, id int64, payload interface{}) error {
	asked := gin.H{"transaction": fmt.Sprintf("order-%d", id), "payload": payload}
	return common.Call(ctx, http.MethodPost, p.service, p.path+"/"+name, asked, &struct{}{})
}

// execute tries, and confirms or cancels.
func (s service) execute(ctx context.Context, made *order, items []item) error {
	payloads := []interface{}{gin.H{"items": stockOf(items)}, gin.H{"user_id": made.User, "amount": made.Total}}
	ctx = common.Detached(ctx)
	for i, one := range participants {
		if err := one.step(ctx, "try", made.ID, payloads[i]); err != nil {
			s.settle(ctx, made.ID, s.decide(ctx, made.ID, "canceling"))
			return err
		}
	}
	made.Status = s.decide(ctx, made.ID, "completed")
	s.settle(ctx, made.ID, made.Status)
	if made.Status != "completed" {
		return common.Fail(http.StatusServiceUnavailable, "service unavailable")
	}
	return nil
}

// stockOf is what of an order the product service is asked for.
func stockOf(items []item) []gin.H {
	stock := make([]gin.H, len(items))
	for i, one := range items {
		stock[i] = gin.H{"product_id": one.Product, "quantity": one.Quantity}
	}
	return stock
}

// decide is what becomes of a transaction that nobody has decided yet; else it is as it was. Empty: the table could not be asked.
func (s service) decide(ctx context.Context, id int64, wanted string) (decided string) {
	err := common.Together(ctx, s.db, func(tx *sql.Tx) error {
		result, err := tx.Exec("update orders set status = $2, changed_at = now() where id = $1 and status = 'created'", id, wanted)
		if err != nil {
			return err
		}
		if count, err := result.RowsAffected(); err == nil && count == 1 && wanted == "completed" {
			if err := told(tx, "order.created", id); err != nil {
				return err
			}
		}
		return tx.QueryRow("select status from orders where id = $1", id).Scan(&decided)
	})
	if err != nil {
		log.Printf("order %d is not decided: %v", id, err)
		return ""
	}
	return decided
}

// settle has all participants do what is decided: `confirm`, or `cancel` in reverse. Each may be asked twice.
func (s service) settle(ctx context.Context, id int64, decided string) {
	step, last := "confirm", "completed"
	if decided == "canceling" {
		step, last = "cancel", "cancelled"
	} else if decided != "completed" {
		return
	}
	for i := range participants {
		one := participants[i]
		if step == "cancel" {
			one = participants[len(participants)-1-i]
		}
		if err := one.step(ctx, step, id, nil); err != nil {
			log.Printf("order %d: %s of %s: %v", id, step, one.path, err)
			return
		}
	}
	err := common.Together(ctx, s.db, func(tx *sql.Tx) error {
		result, err := tx.Exec("update orders set status = $2, settled = true, changed_at = now() where id = $1 and not settled", id, last)
		if err != nil {
			return err
		}
		if count, err := result.RowsAffected(); err != nil || count == 0 || step == "confirm" {
			return err
		}
		return told(tx, "order.cancelled", id)
	})
	if err != nil {
		log.Printf("order %d is not settled: %v", id, err)
	}
}

// recover looks every second for transactions and sagas that were left by whoever ran them.
func (s service) recover() {
	limit, err := time.ParseDuration(os.Getenv("TCC_TIMEOUT"))
	if err != nil {
		limit = 30 * time.Second
	}
	for range time.Tick(time.Second) {
		if err := s.recoverOnce(limit); err != nil {
			log.Printf("recover: %v", err)
		}
	}
}

func (s service) recoverOnce(limit time.Duration) error {
	ctx := context.Background()
	rows, err := s.db.QueryContext(ctx, `select id, status, user_id, total, saga from orders where not settled
		and changed_at < now() - make_interval(secs => case status when 'created' then $1::float8 else least(2, $1::float8) end) order by changed_at limit 100`, limit.Seconds())
	if err != nil {
		return err
	}
	left, sagas := []order{}, map[int64]bool{}
	for rows.Next() {
		var one order
		var saga bool
		if err := rows.Scan(&one.ID, &one.Status, &one.User, &one.Total, &saga); err != nil {
			rows.Close()
			return err
		}
		left, sagas[one.ID] = append(left, one), saga
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for _, one := range left {
		if sagas[one.ID] {
			s.resume(ctx, one)
			continue
		}
		if one.Status == "created" {
			one.Status = s.decide(ctx, one.ID, "canceling")
		}
		s.settle(ctx, one.ID, one.Status)
	}
	return nil
}
