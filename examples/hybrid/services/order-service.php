<?php
// Orders: order.OrderService. Each is of a user who is there, and of products that are in stock.

use App\Caller;
use App\Client;
use App\Config;
use App\Failure;
use App\Remote;
use App\Saga;
use App\Store;
use Google\Protobuf\Internal\Message;
use Order\CancelOrderRequest;
use Order\CancelOrderResponse;
use Order\CreateOrderRequest;
use Order\CreateOrderResponse;
use Order\GetOrderRequest;
use Order\GetOrderResponse;
use Order\Item;
use Order\ListOrdersRequest;
use Order\ListOrdersResponse;
use Order\Order;
use Payment\ChargeRequest;
use Payment\ChargeResponse;
use Payment\RefundRequest;
use Payment\RefundResponse;
use Product\Amount;
use Product\CheckInventoryRequest;
use Product\CheckInventoryResponse;
use Product\DeductInventoryRequest;
use Product\DeductInventoryResponse;
use Product\RestoreInventoryRequest;
use Product\RestoreInventoryResponse;
use User\GetUserRequest;
use User\GetUserResponse;

class OrderService
{
    private const COLUMNS = 'id, user_id, items, total_amount, status';

    public function CreateOrder(CreateOrderRequest $request): CreateOrderResponse
    {
        $user = $request->getUserId();
        $items = $this->items($request);
        if (!Caller::is($user)) {
            throw new Failure("Another user's order", Failure::PERMISSION_DENIED);
        }
        $this->validateUser($user);
        $total = $this->validateProducts($items);
        $id = Store::insert('insert into orders (user_id, items, total_amount) values (?, ?, ?)', [$user, json_encode($items), $total]);
        Saga::run($this->steps($id, $user, $items, $total));
        Remote::publish('order.created', ['order_id' => $id, 'user_id' => $user, 'total_amount' => $total]);

        return new CreateOrderResponse(['order' => $this->order($id)]);
    }

    public function GetOrder(GetOrderRequest $request): GetOrderResponse
    {
        return new GetOrderResponse(['order' => $this->order($request->getId())]);
    }

    public function ListOrders(ListOrdersRequest $request): ListOrdersResponse
    {
        $user = $request->getUserId() ?: Caller::user() ?? 0;
        if (!Caller::is($user)) {
            throw new Failure("Another user's orders", Failure::PERMISSION_DENIED);
        }
        $count = min($request->getPageSize() ?: 100, 100);
        if ($count < 0) {
            throw new Failure('page_size is negative', Failure::INVALID_ARGUMENT);
        }
        $rows = Store::all('select ' . self::COLUMNS . ' from orders where id > ? and status not in (\'new\', \'undoing\') and (user_id = ? or ? = 0) order by id limit ' . $count, [$request->getAfter(), $user, $user]);

        return new ListOrdersResponse(['orders' => array_map($this->toOrder(...), $rows)]);
    }

    public function CancelOrder(CancelOrderRequest $request): CancelOrderResponse
    {
        $order = $this->order($request->getId());
        Saga::undo($this->steps($order->getId()));

        return new CancelOrderResponse(['order' => $order->setStatus('cancelled')]);
    }

    /** Undoes orders that nobody works on any more. */
    public function recover(): void
    {
        // From here on it is not `pending` any more, should somebody be at work on it after all.
        Store::all("update orders set status = 'undoing' where status = 'new' and created_at < now() - interval ? second", [getenv('SAGA_TIMEOUT') ?: 60]);
        foreach (Store::all("select id from orders where status = 'undoing' limit 20") as ['id' => $id]) {
            Saga::undo($this->steps($id));
            error_log("order $id was left half done, and is cancelled");
        }
    }

    /** What is asked for, by product; how much that may be is configuration. */
    private function items(CreateOrderRequest $request): array
    {
        [$most, $products] = [Config::get('max_quantity', 10_000), Config::get('max_products', 20)];
        $items = [];
        foreach ($request->getItems() as $item) {
            $items[$item->getProductId()] = ($items[$item->getProductId()] ?? 0) + $item->getQuantity();
            if ($item->getQuantity() < 1 || $items[$item->getProductId()] > $most) {
                throw new Failure("quantity is 1 to $most", Failure::INVALID_ARGUMENT);
            }
        }
        if (!$items || count($items) > $products) {
            throw new Failure("items has 1 to $products products", Failure::INVALID_ARGUMENT);
        }

        return $items;
    }

    /** The user is there; while the user service is away it is enough that somebody saw him here within a day. */
    private function validateUser(int $id): void
    {
        try {
            $answer = Client::call('user-service', 'user.UserService/GetUser', new GetUserRequest(['id' => $id]), GetUserResponse::class);
            Remote::remember("order:user:$id", $answer->getUser()->getEmail());
        } catch (Failure $e) {
            if ($e->getCode() === Failure::NOT_FOUND) {
                throw new Failure('User not found', Failure::INVALID_ARGUMENT);
            }
            if ($e->getCode() !== Failure::UNAVAILABLE || Remote::remembered("order:user:$id") === null) {
                throw $e;
            }
        }
    }

    /** All are in stock; what they cost together. */
    private function validateProducts(array $items): int
    {
        $total = 0;
        foreach ($items as $product => $quantity) {
            $asked = new CheckInventoryRequest(['product_id' => $product, 'quantity' => $quantity]);
            try {
                $answer = $this->products('CheckInventory', $asked, CheckInventoryResponse::class);
            } catch (Failure $e) {
                throw $e->getCode() === Failure::NOT_FOUND ? new Failure($e->getMessage(), Failure::INVALID_ARGUMENT) : $e;
            }
            if (!$answer->getAvailable()) {
                throw new Failure("Product $product out of stock", Failure::FAILED_PRECONDITION);
            }
            $total += $answer->getPrice() * $quantity;
        }
        if ($total > 2_147_483_647) {
            throw new Failure('This is more than an order can cost', Failure::INVALID_ARGUMENT);
        }

        return $total;
    }

    /** An order as a saga: it is there, its items are deducted, it is paid. The id is the key that makes asking again harmless. */
    private function steps(int $order, int $user = 0, array $items = [], int $total = 0): array
    {
        $amounts = array_map(fn ($product, $quantity) => new Amount(['product_id' => $product, 'quantity' => $quantity]), array_keys($items), $items);
        $deduct = new DeductInventoryRequest(['order_id' => $order, 'items' => $amounts]);
        $restore = new RestoreInventoryRequest(['order_id' => $order]);
        $charge = new ChargeRequest(['order_id' => $order, 'user_id' => $user, 'amount' => $total]);
        $refund = new RefundRequest(['order_id' => $order]);

        return [
            [fn () => null, fn () => Store::all("update orders set status = 'cancelled' where id = ?", [$order])],
            [fn () => $this->products('DeductInventory', $deduct, DeductInventoryResponse::class), fn () => $this->products('RestoreInventory', $restore, RestoreInventoryResponse::class)],
            [fn () => $this->payments('Charge', $charge, ChargeResponse::class), fn () => $this->payments('Refund', $refund, RefundResponse::class)],
            [fn () => $this->place($order), fn () => null],
        ];
    }

    private function place(int $order): void
    {
        Store::all("update orders set status = 'pending' where id = ? and status = 'new'", [$order]);
        if (Store::one('select status from orders where id = ?', [$order])['status'] !== 'pending') {
            throw new Failure("Order $order took too long, and is cancelled", Failure::UNAVAILABLE);
        }
    }

    private function payments(string $method, Message $request, string $kind): Message
    {
        return Client::call('payment-service', "payment.PaymentService/$method", $request, $kind);
    }

    private function products(string $method, Message $request, string $kind): Message
    {
        return Client::call('product-service', "product.ProductService/$method", $request, $kind);
    }

    private function order(int $id): Order
    {
        $row = Store::one('select ' . self::COLUMNS . ' from orders where id = ?', [$id]);
        if (!$row || !Caller::is($row['user_id'])) {
            throw new Failure('Order not found', Failure::NOT_FOUND);
        }

        return $this->toOrder($row);
    }

    private function toOrder(array $row): Order
    {
        $items = [];
        foreach (json_decode($row['items'], true) as $product => $quantity) {
            $items[] = new Item(['product_id' => $product, 'quantity' => $quantity]);
        }

        return new Order(['items' => $items] + $row);
    }
}

return ['order.OrderService' => new OrderService()];
