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

// Refused is the step that a service refused: nothing of the saga is left.
type Refused struct{ Step string }

func (r Refused) Error() string { return "refused: " + r.Step }

// Saga has lictor do these steps in order or, where one fails, undo those before it. It goes on when we are gone: there, or at another instance.
func Saga(ctx context.Context, id string, steps []SagaStep) error {
	text, err := json.Marshal(map[string]interface{}{"ID": id, "Steps": steps})
	if err != nil {
		return err
	}
	response, err := own(ctx, http.MethodPost, "/v1/saga?wait=25s", bytes.NewReader(text))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusOK || response.StatusCode == http.StatusAccepted {
		return nil // it is done, or will be
	}
	var told struct {
		Status, Reason, Message string
		Failed, Compensated     []string
	}
	_ = json.NewDecoder(response.Body).Decode(&told)
	log.Printf("saga %s is %s: %s%s", id, told.Status, told.Reason, told.Message)
	// What nobody answered may have been done, and is undone too.
	for _, step := range told.Failed {
		if told.Status == "failed" && (len(told.Compensated) == 0 || told.Compensated[0] != step) {
			return Refused{step}
		}
	}
	return Fail(http.StatusServiceUnavailable, "service unavailable")
}
