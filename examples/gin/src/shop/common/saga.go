package common

import (
	"bytes"
	"context"
	"encoding/json"
	"log"
	"net/http"
)

// SagaStep is a call of another service, POST /api/ACTION, and what undoes it, POST /api/COMPENSATION with the same payload.
type SagaStep struct {
	Name         string
	Service      string
	Action       string
	Compensation string
	Payload      interface{}
}

// Refused is a saga of which nothing is left: the step that a service refused; empty: one of which nobody knows.
type Refused struct{ Step string }

func (r Refused) Error() string { return "refused: " + r.Step }

// Saga has lictor do these steps in order or, where one fails, undo those before it. Asking for the same again tells what became of it.
func Saga(ctx context.Context, id, wait string, steps []SagaStep) error {
	text, err := json.Marshal(map[string]interface{}{"ID": id, "Steps": steps})
	if err != nil {
		return err
	}
	response, err := own(ctx, http.MethodPost, "/v1/saga?wait="+wait, bytes.NewReader(text))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var told struct {
		Status, Reason, Message string
		Failed, Compensated     []string
	}
	_ = json.NewDecoder(response.Body).Decode(&told)
	if told.Status == "completed" {
		return nil
	}
	log.Printf("saga %s: %s %s %s%s", id, response.Status, told.Status, told.Reason, told.Message)
	if told.Status != "failed" {
		return Fail(http.StatusServiceUnavailable, "service unavailable") // it goes on, was not begun, or needs somebody
	}
	for _, step := range told.Failed {
		if len(told.Compensated) == 0 || told.Compensated[0] != step { // else it may have been done, and is undone too
			return Refused{step}
		}
	}
	return Refused{}
}
