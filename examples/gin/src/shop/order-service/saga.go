package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"net/http"

	"github.com/gin-gonic/gin"

	"shop/common"
)

// An order may be a saga instead of a transaction (tcc.go): each step has its effect at once, and is undone where a later one is refused. lictor does the
// steps, here or at another instance; what became of them is asked by asking for the same once more.

var refusals = map[string]error{
	"deduct": common.Fail(http.StatusConflict, "insufficient stock"),
	"charge": common.Fail(http.StatusConflict, "insufficient balance"),
	"":       common.Fail(http.StatusServiceUnavailable, "service unavailable"),
}

func (s service) bySaga(ctx context.Context, made *order, items []item, wait string) error {
	err := common.Saga(ctx, fmt.Sprintf("saga-%d", made.ID), wait, []common.SagaStep{
		{Name: "charge", Service: "user-service", Action: "credit/charge", Compensation: "credit/refund", Payload: gin.H{"user_id": made.User, "amount": made.Total}},
		{Name: "deduct", Service: "product-service", Action: "stock/deduct", Compensation: "stock/restore", Payload: gin.H{"items": stockOf(items)}},
	})
	var refused common.Refused
	switch {
	case errors.As(err, &refused):
		return first(s.finish(ctx, made, "cancelled"), refusals[refused.Step])
	case err != nil:
		return err // nobody knows yet: recover asks
	default:
		return s.finish(ctx, made, "completed")
	}
}

// finish writes the end, once.
func (s service) finish(ctx context.Context, made *order, status string) error {
	made.Status = status
	return common.Together(ctx, s.db, func(tx *sql.Tx) error {
		result, err := tx.Exec("update orders set status = $2, settled = true, changed_at = now() where id = $1 and not settled", made.ID, status)
		if err != nil {
			return err
		}
		if count, err := result.RowsAffected(); err != nil || count == 0 {
			return err
		}
		return told(tx, map[string]string{"completed": "order.created", "cancelled": "order.cancelled"}[status], made.ID)
	})
}

// resume is for one that was left by whoever began it, or has not begun.
func (s service) resume(ctx context.Context, left order) {
	items, err := s.items(ctx, left.ID)
	if err == nil {
		err = s.bySaga(ctx, &left, items, "1s")
	}
	if err != nil {
		log.Printf("order %d: %v", left.ID, err)
	}
}

func (s service) items(ctx context.Context, order int64) ([]item, error) {
	rows, err := s.db.QueryContext(ctx, "select product_id, quantity from items where order_id = $1 order by product_id", order)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	items := []item{}
	for rows.Next() {
		var one item
		if err := rows.Scan(&one.Product, &one.Quantity); err != nil {
			return nil, err
		}
		items = append(items, one)
	}
	return items, rows.Err()
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
