<?php
// Payments: payment.PaymentService. Each is of an order, which is the key that makes asking again harmless.

use App\Config;
use App\Failure;
use App\Store;
use Payment\ChargeRequest;
use Payment\ChargeResponse;
use Payment\RefundRequest;
use Payment\RefundResponse;

class PaymentService
{
    public function Charge(ChargeRequest $request): ChargeResponse
    {
        [$order, $amount] = [$request->getOrderId(), $request->getAmount()];
        if (!$this->status($order) && ($amount < 1 || $amount > Config::get('max_amount', 10_000_000))) {
            throw new Failure("Payment of $amount is refused", Failure::FAILED_PRECONDITION);
        }
        $charge = "insert into payments values (?, ?, ?, 'charged') on duplicate key update order_id = order_id";
        Store::all($charge, [$order, $request->getUserId(), $amount]);
        if ($this->status($order) !== 'charged') {
            throw new Failure("Order $order is refunded", Failure::FAILED_PRECONDITION);
        }

        return new ChargeResponse();
    }

    public function Refund(RefundRequest $request): RefundResponse
    {
        $refund = "insert into payments values (?, 0, 0, 'refunded') on duplicate key update status = 'refunded'";
        Store::all($refund, [$request->getOrderId()]);

        return new RefundResponse();
    }

    private function status(int $order): ?string
    {
        return Store::one('select status from payments where order_id = ?', [$order])['status'] ?? null;
    }
}

return ['payment.PaymentService' => new PaymentService()];
