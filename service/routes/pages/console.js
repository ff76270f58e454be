// The button of each model scores the example of its command, and shows the response.
for (const button of document.querySelectorAll("button[data-url]")) {
  button.addEventListener("click", async () => {
    const output = button.nextElementSibling;
    button.disabled = true;
    try {
      const response = await fetch(button.dataset.url, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: button.dataset.body,
      });
      output.textContent = JSON.stringify(await response.json(), null, 2);
    } catch (error) {
      output.textContent = String(error);
    } finally {
      button.disabled = false;
    }
  });
}
