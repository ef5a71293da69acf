fetch('/api/products').then((answer) => answer.json()).then(({ products }) => {
  for (const { name, price } of products) {
    const line = document.createElement('li');
    line.textContent = `${name}: ${(price / 100).toFixed(2)}`;
    document.getElementById('products').append(line);
  }
});
