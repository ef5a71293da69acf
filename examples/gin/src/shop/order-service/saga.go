package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/gin-gonic/gin"

	"shop/common"
)

// An order may be a saga instead of a transaction (tcc.go): each step has its effect at once, and is undone where a later one fails. The order itself is the
// first step and the last, at whichever instance of this service.

type opened struct {
	Saga  string `json:"saga"`
	User  int64  `json:"user_id"`
	Total int64  `json:"total"`
	Items []item `json:"items"`
}

func (s service) bySaga(ctx context.Context, made *order, items []item) error {
	random := make([]byte, 16)
	if _, err := rand.Read(random); err != nil {
		return err
	}
	id := fmt.Sprintf("saga-%x", random)
	err := common.Saga(common.Detached(ctx), id, []common.SagaStep{
		{Name: "open", Service: "order-service", Action: "order/open", Compensation: "order/drop", Payload: opened{id, made.User, made.Total, items}},
		{Name: "deduct", Service: "product-service", Action: "stock/deduct", Compensation: "stock/restore", Payload: gin.H{"items": stockOf(items)}},
		{Name: "charge", Service: "user-service", Action: "credit/charge", Compensation: "credit/refund", Payload: gin.H{"user_id": made.User, "amount": made.Total}},
		{Name: "complete", Service: "order-service", Action: "order/complete", Compensation: "order/reopen", Payload: opened{Saga: id}},
	})
	var refused common.Refused
	if errors.As(err, &refused) {
		return common.Fail(http.StatusConflict, map[string]string{"deduct": "insufficient stock", "charge": "insufficient balance"}[refused.Step])
	}
	if err != nil {
		return err
	}
	return s.db.QueryRowContext(ctx, "select id, status, created_at at time zone 'utc' from orders where saga = $1", id).Scan(&made.ID, &made.Status, &made.Created)
}

func (s service) sagaSteps(engine *gin.Engine) {
	status := func(wanted, key string) func(tx *sql.Tx, payload []byte) error {
		return func(tx *sql.Tx, payload []byte) error {
			var asked opened
			if err := json.Unmarshal(payload, &asked); err != nil {
				return err
			}
			var id int64
			err := tx.QueryRow("update orders set status = $2, changed_at = now() where saga = $1 returning id", asked.Saga, wanted).Scan(&id)
			if err == nil && key != "" {
				err = told(tx, key, id)
			}
			return err
		}
	}
	common.Step(engine, s.db, "/api/order/open", "/api/order/drop", open, status("cancelled", "order.cancelled"))
	common.Step(engine, s.db, "/api/order/complete", "/api/order/reopen", status("completed", "order.created"), status("created", ""))
}

// open writes an order that TCC has nothing to do with: `settled`.
func open(tx *sql.Tx, payload []byte) error {
	var asked opened
	if err := json.Unmarshal(payload, &asked); err != nil {
		return err
	}
	var id int64
	err := tx.QueryRow("insert into orders (user_id, status, total, settled, saga) values ($1, 'created', $2, true, $3) returning id", asked.User, asked.Total, asked.Saga).Scan(&id)
	if err != nil {
		return err
	}
	return keep(tx, id, asked.Items)
}
